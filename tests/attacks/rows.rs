//! docs/threat-model.md names a test for each of its rows, and each of them is there.

use std::fs;
use std::path::Path;

/// The cells of the table below a heading, without its head.
fn table(page: &str, heading: &str) -> Vec<Vec<String>> {
    let (_, below) = page.split_once(heading).unwrap_or_else(|| panic!("no {heading}"));
    let rows =
        below.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    let cells = |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    rows.skip(2).map(cells).collect()
}

#[test]
fn every_row_names_its_tests_and_they_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("docs/threat-model.md")).expect("the page");
    let threats: Vec<String> = table(&page, "# Threat model").into_iter().map(|row| row[0].clone()).collect();
    let shown = table(&page, "## Shown by");
    let rows: Vec<String> = shown.iter().map(|row| row[0].clone()).collect();
    assert!(rows.len() > threats.len(), "{} rows", rows.len());
    for threat in &threats {
        assert!(rows.contains(threat), "no test is named for: {threat}");
    }
    for row in &shown {
        let tests: Vec<&str> = row[1].split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "{}", row[0]);
        for test in tests {
            let (file, name) = test.split_once("::").unwrap_or_else(|| panic!("{test} names no test"));
            let source = fs::read_to_string(root.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
            assert!(
                source.contains(&format!("#[test]\nfn {name}()"))
                    || source.contains(&format!("    fn {name}()")),
                "{test}"
            );
        }
    }
}
