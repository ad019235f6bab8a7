#![no_main]

use libfuzzer_sys::fuzz_target;
use sd_conditioner::Profile;
use sd_conditioner::tokens::Tokenizer;
use sd_conditioner::weights::EncoderId;

fuzz_target!(|text: &str| {
    for profile in Profile::ALL {
        for encoder in EncoderId::ALL {
            let rule = profile.choices().chunk_rule(encoder).tokens;
            for id in Tokenizer::clip().encode(text, rule) {
                assert!(id < 49408, "{id}");
            }
        }
    }
});
