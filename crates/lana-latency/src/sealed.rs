//! Files that are whole or not there, and that know when they are damaged.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Writes a file so that it is there whole or not at all: temporary name, fsync, rename.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new().prefix(".").suffix(".tmp").tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    }
    file.persist(path).map_err(|e| e.error)?;
    File::open(folder)?.sync_all()
}

/// SHA-256 in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// A JSON object with the SHA-256 of its content in the field `checksum`.
///
/// # Errors
/// In words, if the value cannot be written as JSON.
pub fn seal<T: Serialize>(value: &T) -> Result<Value, String> {
    let mut value = serde_json::to_value(value).map_err(|e| e.to_string())?;
    let sum = sha256(value.to_string().as_bytes());
    if let Value::Object(map) = &mut value {
        map.insert("checksum".into(), sum.into());
    }
    Ok(value)
}

/// What [`seal`] made a JSON object of.
///
/// # Errors
/// In words, if it is not whole, not what was sealed, or something else.
pub fn unseal<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let value = serde_json::from_str(text).map_err(|e| format!("not whole: {e}"))?;
    serde_json::from_value(broken(value)?).map_err(|e| e.to_string())
}

/// A sealed object without its seal.
pub(crate) fn broken(mut value: Value) -> Result<Value, String> {
    if let Value::Object(map) = &mut value {
        let sum = map.remove("checksum");
        let real = sha256(value.to_string().as_bytes());
        if sum.as_ref().and_then(Value::as_str) != Some(real.as_str()) {
            return Err("its checksum does not match its content".into());
        }
    }
    Ok(value)
}
