#![no_main]

use ferrypost_http::target::NormalPath;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(path) = NormalPath::parse(text) else {
        return;
    };
    let form = path.as_str();
    assert!(form.starts_with('/') && form.is_ascii() && !form.contains("//"));
    assert_eq!(NormalPath::parse(form).as_ref(), Ok(&path));
    let (exact, lax) = path.readings();
    for segment in exact.iter().chain(lax.iter().flatten()) {
        assert!(!matches!(segment.as_ref(), b"." | b".."));
        assert!(!segment.iter().any(u8::is_ascii_control));
    }
});
