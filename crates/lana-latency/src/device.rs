use serde::{Deserialize, Serialize};

/// What a machine is, as far as latency depends on it: a lookup table belongs to one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Kind of device: `cpu`.
    pub kind: String,
    /// The processor's name.
    pub model: String,
    /// Hash of the processor's instruction set extensions (their sorted names, FNV-1a).
    pub flags: String,
    /// Logical cores.
    pub logical_cores: usize,
    /// Architecture, such as `x86_64`.
    pub architecture: String,
    /// Operating system, such as `linux`.
    pub system: String,
    /// Release of its kernel; not compared.
    pub release: Option<String>,
    /// What steers the clock, where that can be read; not compared.
    pub governor: Option<String>,
}

impl Device {
    /// The CPU this runs on.
    pub fn identify() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).ok().map(|t| t.trim().to_string());
        let info = read("/proc/cpuinfo").unwrap_or_default();
        let field = |names: &[&str]| {
            info.lines().filter_map(|l| l.split_once(':')).find(|(k, _)| names.contains(&k.trim()))
        };
        let field = |names: &[&str]| field(names).map(|(_, value)| value.trim().to_string());
        let model = field(&["model name", "Hardware", "Processor"])
            .or_else(|| sysctl("machdep.cpu.brand_string"))
            .or_else(|| field(&["CPU part"]).map(|part| format!("CPU part {part}")));
        let flags = field(&["flags", "Features"]).or_else(|| sysctl("machdep.cpu.features"));
        // Not what this process may use: a pinned process is still on this device.
        let listed = info.lines().filter(|l| l.starts_with("processor")).count();
        Device {
            kind: "cpu".into(),
            model: model.unwrap_or_else(|| "unknown".into()),
            flags: hash_of_words(&flags.unwrap_or_default()),
            logical_cores: match listed {
                0 => std::thread::available_parallelism().map_or(1, usize::from),
                listed => listed,
            },
            architecture: std::env::consts::ARCH.into(),
            system: std::env::consts::OS.into(),
            release: read("/proc/sys/kernel/osrelease").or_else(|| sysctl("kern.osrelease")),
            governor: read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        }
    }

    /// A name for files: `cpu-amd-epyc-2x-1f0c`, with the end of the flags' hash.
    pub fn slug(&self) -> String {
        let text = format!(
            "{} {} {}x {}",
            self.kind,
            self.model,
            self.logical_cores,
            &self.flags[..self.flags.len().min(4)]
        );
        let mut slug = String::new();
        for c in text.to_lowercase().chars() {
            match c.is_ascii_alphanumeric() {
                true => slug.push(c),
                false if !slug.is_empty() && !slug.ends_with('-') => slug.push('-'),
                false => {}
            }
        }
        slug.trim_end_matches('-').to_string()
    }

    /// What differs between two devices in a way that changes latency; none if they count as the same.
    pub fn differences(&self, other: &Device) -> Option<String> {
        let cores = (self.logical_cores.to_string(), other.logical_cores.to_string());
        let pairs = [
            ("kind", &self.kind, &other.kind),
            ("processor", &self.model, &other.model),
            ("instruction sets", &self.flags, &other.flags),
            ("logical cores", &cores.0, &cores.1),
            ("architecture", &self.architecture, &other.architecture),
            ("system", &self.system, &other.system),
        ];
        let list: Vec<String> = pairs
            .iter()
            .filter(|(_, a, b)| a != b)
            .map(|(what, a, b)| format!("{what} `{a}` there, `{b}` here"))
            .collect();
        (!list.is_empty()).then(|| list.join(", "))
    }
}

/// A setting of macOS.
fn sysctl(name: &str) -> Option<String> {
    if !cfg!(target_os = "macos") {
        return None;
    }
    let output = std::process::Command::new("sysctl").args(["-n", name]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_string();
    (!text.is_empty()).then_some(text)
}

/// FNV-1a over the sorted words.
fn hash_of_words(text: &str) -> String {
    let mut words: Vec<&str> = text.split_whitespace().collect();
    words.sort_unstable();
    words.dedup();
    let hash = words.join(" ").bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_itself_and_no_other() {
        let here = Device::identify();
        assert_eq!(here.differences(&Device::identify()), None);
        let mut other = Device { governor: Some("powersave".into()), release: None, ..here.clone() };
        assert_eq!(other.differences(&here), None);
        other.model = "Other CPU".into();
        let text = other.differences(&here).expect("another processor");
        assert!(text.contains("processor `Other CPU` there"), "{text}");
        assert!(here.slug().chars().all(|c| c.is_ascii_alphanumeric() || c == '-'), "{}", here.slug());
    }

    #[test]
    fn order_of_flags_does_not_count() {
        assert_eq!(hash_of_words("avx2 fma sse"), hash_of_words("sse  avx2 fma fma"));
        assert_ne!(hash_of_words("avx2 fma"), hash_of_words("avx2"));
    }
}
