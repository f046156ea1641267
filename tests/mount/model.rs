//! Random operations on a mount and on a plain directory beside it: 12 cases, or RUNVAULT_MODEL_CASES.

use runvault_tests::Site;
use runvault_tests::model;
use runvault_tests::tools::{again_as, root_for};

#[test]
fn behaves_like_a_plain_directory() {
    let cases = std::env::var("RUNVAULT_MODEL_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    model::behaves_like_a_plain_directory(&Site::new(), cases);
}

#[test]
fn behaves_like_a_plain_directory_for_an_ordinary_user() {
    // Where this is no root, the first test was an ordinary user's; root's is then left out.
    if !root_for("the model as root") {
        return;
    }
    again_as(65534, 65534, "model::behaves_like_a_plain_directory");
}
