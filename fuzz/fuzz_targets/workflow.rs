#![no_main]

use libfuzzer_sys::fuzz_target;
use sd_conditioner::graph::{Socket, Workflow};

fuzz_target!(|bytes: &[u8]| {
    let Ok(workflow) = Workflow::from_bytes(bytes) else {
        return;
    };
    let all = workflow.conditionings();
    let plan = workflow.plan(&all);
    let mut each = all.iter().map(|socket| workflow.plan(std::slice::from_ref(socket)));
    assert_eq!(plan.is_ok(), each.all(|plan| plan.is_ok()));
    if let Ok(plan) = plan {
        assert_eq!(plan.sockets().count(), all.len());
        assert_eq!(plan.n_encodings() == 0, plan.n_windows() == 0);
    }
    for id in 0..8 {
        let _ = workflow.plan(&[Socket::output(id.to_string(), 0)]);
        let _ = workflow.sockets_of(&id.to_string());
    }
});
