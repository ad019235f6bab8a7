// Compiles what comes in with NVIDIA's nvrtc: `compile LIBRARY OPTION... < text`. What is wrong goes to stderr.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

static void* library;

template <typename... Arguments>
static int call(const char* name, Arguments... arguments) {
    const auto function = reinterpret_cast<int (*)(Arguments...)>(dlsym(library, name));
    if (!function) std::fprintf(stderr, "the library has no %s\n", name), std::exit(2);
    return function(arguments...);
}

int main(int argc, char** argv) {
    if (argc < 2 || !(library = dlopen(argv[1], RTLD_NOW))) {
        std::fprintf(stderr, "no library: %s\n", argc < 2 ? "compile LIBRARY OPTION..." : dlerror());
        return 2;
    }
    std::string text;
    for (int letter; (letter = std::getchar()) != EOF;) text += char(letter);
    const std::vector<const char*> options(argv + 2, argv + argc);
    void* program = nullptr;
    const char* const* none = nullptr;
    call("nvrtcCreateProgram", &program, text.c_str(), "kernels.cu", 0, none, none);
    const int status = call("nvrtcCompileProgram", program, int(options.size()), options.data());
    size_t bytes = 0;
    call("nvrtcGetProgramLogSize", program, &bytes);
    std::string log(bytes, ' ');
    call("nvrtcGetProgramLog", program, log.data());
    if (status) std::fprintf(stderr, "%s\n", log.c_str());
    return status != 0;
}
