//! Whatever bytes are read as an ONNX file: an error, or a network that can be written and read again.
#![no_main]

use lana_onnx::{ExportOptions, export, import};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok((graph, weights)) = import(bytes) {
        let written = export(&graph, &weights, &ExportOptions::default()).expect("what was read can be written");
        let (again, same) = import(&written).expect("what was written can be read");
        assert_eq!((again, same), (graph, weights));
    }
});
