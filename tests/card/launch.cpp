// Compiling, modules, functions, and the start of a kernel with its limits.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>

#include "streams.h"

using namespace card;

namespace {

struct Program {
    std::string source, text, log;
    bool binary = false;
};

struct Module {
    std::string only;  // "F32", "F16", "BF16" for our own, empty for candle's
    bool loaded = true;
};

struct Function {
    std::shared_ptr<Module> module;
    std::shared_ptr<Kernel> kernel;
    std::string name;
    unsigned shared = 48 << 10;  // bytes that it may ask for when it is started
};

constexpr char MARK[] = "// made by the fake card: ";
constexpr char BINARY_MARK[] = "\x7f" "ELF by the fake card: ";

// "sm_90" for the card that is there.
std::string own_instructions() {
    int major = 0, minor = 0;
    cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 0);
    cuDeviceGetAttribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 0);
    return "sm_" + std::to_string(10 * major + minor);
}

void check_launch(const Function& function, const Dim3& grid, const Dim3& block, unsigned shared) {
    const char* name = function.name.c_str();
    const uint64_t threads = uint64_t(block.x) * block.y * block.z;
    if (threads == 0 || threads > function.kernel->most_threads || block.z > 64)
        fail("%s: a block of %u × %u × %u threads", name, block.x, block.y, block.z);
    if (!grid.x || !grid.y || !grid.z || grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535)
        fail("%s: a grid of %u × %u × %u blocks", name, grid.x, grid.y, grid.z);
    if (shared > function.shared) fail("%s: %u bytes of shared memory were not asked for first", name, shared);
}

CUresult launch(const CUlaunchConfig& config, CUfunction handle, void** parameters) {
    CARD_CALL;
    const Function function = *reinterpret_cast<Function*>(handle);
    auto call = std::make_shared<Call>();
    call->grid = {config.gridDimX, config.gridDimY, config.gridDimZ};
    call->block = {config.blockDimX, config.blockDimY, config.blockDimZ};
    call->shared = config.sharedMemBytes;
    check_launch(function, call->grid, call->block, config.sharedMemBytes);
    for (size_t index = 0; index < function.kernel->sizes.size(); ++index) {
        const auto* from = static_cast<const unsigned char*>(parameters[index]);
        call->values.emplace_back(from, from + function.kernel->sizes[index]);
    }
    return put(config.hStream, {function.name, [=] { return function.kernel->touches(*call); },
                                [=] {
                                    if (!function.module->loaded) fail("its module was unloaded");
                                    counts().kernels++;
                                    function.kernel->run(*call);
                                },
                                0.002});
}

// With CARD_COMPILER (compile.cpp and a library) NVIDIA's own compiler has to take the text and the options, too.
int compile_really(const Program& program, int n_options, const char* const* options) {
    std::string command = std::getenv("CARD_COMPILER");
    for (int index = 0; index < n_options; ++index) command += std::string(" '") + options[index] + "'";
    FILE* pipe = popen(command.c_str(), "w");
    if (!pipe) fail("CARD_COMPILER cannot be started");
    std::fwrite(program.source.data(), 1, program.source.size(), pipe);
    return pclose(pipe);
}

}  // namespace

extern "C" {

// ---- nvrtc -------------------------------------------------------------------------------------------

int nvrtcCreateProgram(Program** program, const char* source, const char*, int headers, const char* const*, const char* const*) {
    if (headers) fail("the kernels need no headers");
    return *program = new Program{source, "", ""}, 0;
}

// The text comes back as the name of its type: what runs are our kernels, compiled as C++.
int nvrtcCompileProgram(Program* program, int n_options, const char* const* options) {
    static const std::set<std::string> known = {"--gpu-architecture=compute_75", "--gpu-architecture=compute_80",
                                                "--gpu-architecture=compute_90", "--gpu-architecture=sm_75",
                                                "--gpu-architecture=sm_80",      "--gpu-architecture=sm_90",
                                                "--std=c++17",                   "--device-as-default-execution-space"};
    const std::string binary = "--gpu-architecture=sm_";
    std::string made_for;
    for (int index = 0; index < n_options; ++index) {
        const std::string option = options[index];
        if (!option.compare(0, binary.size(), binary)) made_for = option.substr(option.find('=') + 1) + " ";
        if (!known.count(option)) {
            program->log = std::string("unknown option ") + options[index];
            return 5;  // NVRTC_ERROR_INVALID_OPTION
        }
    }
    if (std::getenv("CARD_COMPILER") && compile_really(*program, n_options, options)) return 6;  // NVRTC_ERROR_COMPILATION
    const std::string define = "#define ONLY_";
    const size_t end = program->source.find(" 1\n");
    if (program->source.compare(0, define.size(), define) || end == std::string::npos) fail("which type is to be compiled?");
    program->binary = !made_for.empty();
    program->text = (program->binary ? BINARY_MARK + made_for : MARK) + program->source.substr(define.size(), end - define.size());
    return 0;
}

int nvrtcVersion(int* major, int* minor) { return *major = 13, *minor = 0, 0; }
int nvrtcGetPTXSize(Program* program, size_t* size) { return *size = program->text.size() + 1, 0; }
int nvrtcGetPTX(Program* program, char* to) { return std::memcpy(to, program->text.c_str(), program->text.size() + 1), 0; }
// There is none but for a card that was named.
int nvrtcGetCUBINSize(Program* program, size_t* size) { return *size = program->binary ? program->text.size() + 1 : 0, 0; }
int nvrtcGetCUBIN(Program* program, char* to) { return program->binary ? nvrtcGetPTX(program, to) : 0; }
int nvrtcGetProgramLogSize(Program* program, size_t* size) { return *size = program->log.size() + 1, 0; }
int nvrtcGetProgramLog(Program* program, char* to) { return std::memcpy(to, program->log.c_str(), program->log.size() + 1), 0; }
int nvrtcDestroyProgram(Program** program) { return delete *program, *program = nullptr, 0; }

// ---- Modules -----------------------------------------------------------------------------------------

CUresult cuModuleLoadData(CUmodule* module, const void* image) {
    CARD_CALL;
    if (CUresult status = refused_in_capture(__func__)) return status;
    const auto* text = static_cast<const char*>(image);
    auto made = std::make_shared<Module>();
    if (std::strncmp(text, MARK, sizeof MARK - 1) == 0) made->only = text + sizeof MARK - 1;
    if (std::strncmp(text, BINARY_MARK, sizeof BINARY_MARK - 1) == 0) {
        // A driver that is too old for them takes assembly.
        const std::string rest = text + sizeof BINARY_MARK - 1, own = own_instructions() + " ";
        if (std::getenv("CARD_NO_BINARIES") || rest.compare(0, own.size(), own)) return CUDA_ERROR_NO_BINARY_FOR_GPU;
        made->only = rest.substr(own.size());
    }
    *module = reinterpret_cast<CUmodule>(new std::shared_ptr<Module>(made));
    return CUDA_SUCCESS;
}
CUresult cuModuleLoad(CUmodule*, const char* file) { fail("a module from the file %s", file); }
CUresult cuModuleUnload(CUmodule handle) {
    CARD_CALL;
    auto* module = reinterpret_cast<std::shared_ptr<Module>*>(handle);
    run_all();  // what is on its way keeps its code; what is started or replayed later has none
    (*module)->loaded = false;
    delete module;
    return CUDA_SUCCESS;
}

CUresult cuModuleGetFunction(CUfunction* function, CUmodule handle, const char* name) {
    CARD_CALL;
    const auto& module = *reinterpret_cast<std::shared_ptr<Module>*>(handle);
    auto kernel = module->only.empty() ? candle_kernel(name) : fused_kernel(module->only, name);
    if (!kernel && module->only.empty()) fail("candle's kernel %s has no twin in candle.cpp yet", name);
    if (!kernel) return CUDA_ERROR_NOT_FOUND;
    *function = reinterpret_cast<CUfunction>(new Function{module, kernel, name});
    return CUDA_SUCCESS;
}

// ---- Launch ------------------------------------------------------------------------------------------

CUresult cuLaunchKernel(CUfunction handle, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                        unsigned block_z, unsigned shared, CUstream stream, void** parameters, void**) {
    return launch({grid_x, grid_y, grid_z, block_x, block_y, block_z, shared, stream, nullptr, 0}, handle, parameters);
}

// A kernel that may overlap the one before is run after it: what it does before it awaits that one is reading
// weights, which the emulator cannot tell from the rest. That it awaits it at all, the emulator checks.
CUresult cuLaunchKernelEx(const CUlaunchConfig* config, CUfunction handle, void** parameters, void** extra) {
    if (extra) fail("parameters in another form");
    for (unsigned index = 0; index < config->numAttrs; ++index) {
        const CUlaunchAttribute& attribute = config->attrs[index];
        if (attribute.id != CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION) fail("launch attribute %d", int(attribute.id));
        if (attribute.value.programmaticStreamSerializationAllowed != 1) fail("an attribute that says nothing");
        int major = 0;
        cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 0);
        if (major < 9) return CUDA_ERROR_NOT_SUPPORTED;
        counts().overlapping++;
    }
    return launch(*config, handle, parameters);
}

CUresult cuFuncSetAttribute(CUfunction handle, CUfunction_attribute attribute, int value) {
    CARD_CALL;
    if (attribute == CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT && value == 100) return CUDA_SUCCESS;
    if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) fail("function attribute %d", int(attribute));
    if (value < 0 || value > 227 << 10) return CUDA_ERROR_INVALID_VALUE;
    reinterpret_cast<Function*>(handle)->shared = unsigned(value);
    return CUDA_SUCCESS;
}
}
