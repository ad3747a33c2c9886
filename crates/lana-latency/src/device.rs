use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Processor;

/// What a machine is, as far as latency depends on it: a lookup table belongs to one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Kind of device: `cpu` or `cuda`.
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
    /// The GPU, if networks run there and it can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Gpu>,
}

/// A GPU as the driver's `nvidia-smi` describes it. That program comes with every driver and container toolkit, and its
/// table of values is stable; NVML itself would be a dependency more for the same numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gpu {
    /// Its name.
    pub name: String,
    /// Its memory, MiB.
    pub memory_mib: Option<u64>,
    /// Highest clock of its processors, MHz.
    pub max_clock_mhz: Option<u64>,
    /// Version of the driver; not compared, like all below.
    pub driver: Option<String>,
    /// Clock of its processors when it was looked at, MHz.
    pub clock_mhz: Option<u64>,
    /// Clock of its memory then, MHz.
    pub memory_clock_mhz: Option<u64>,
    /// Power it may draw, watts.
    pub power_limit_w: Option<u64>,
}

impl Gpu {
    /// The GPU that CUDA takes first, as far as the environment tells: the first of `CUDA_VISIBLE_DEVICES`, else number 0.
    fn identify() -> Option<Self> {
        let visible = std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or_default();
        let first = visible.split(',').next().map(str::trim).filter(|id| !id.is_empty()).unwrap_or("0");
        let output = std::process::Command::new("nvidia-smi")
            .arg(
                "--query-gpu=name,memory.total,clocks.max.sm,driver_version,clocks.sm,clocks.mem,power.limit",
            )
            .args(["--format=csv,noheader,nounits", "--id", first])
            .output()
            .ok()
            .filter(|output| output.status.success())?;
        Gpu::parse(&String::from_utf8(output.stdout).ok()?)
    }

    /// What of it changes latency, in words.
    fn compared(&self) -> String {
        let number = |n: Option<u64>| n.map_or("unknown".into(), |n| n.to_string());
        let (memory, clock) = (number(self.memory_mib), number(self.max_clock_mhz));
        format!("{} with {memory} MiB, up to {clock} MHz", self.name)
    }

    /// Reads the first line of that table.
    fn parse(table: &str) -> Option<Self> {
        let fields: Vec<&str> = table.lines().next()?.split(',').map(str::trim).collect();
        let [name, memory, max_clock, driver, clock, memory_clock, power] = fields[..] else { return None };
        // What a GPU does not tell reads `[N/A]`.
        let number = |text: &str| text.parse::<f64>().ok().map(|n| n.round() as u64);
        Some(Gpu {
            name: name.into(),
            memory_mib: number(memory),
            max_clock_mhz: number(max_clock),
            driver: (!driver.starts_with('[')).then(|| driver.into()),
            clock_mhz: number(clock),
            memory_clock_mhz: number(memory_clock),
            power_limit_w: number(power),
        })
    }
}

impl fmt::Display for Device {
    /// A device in a few words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(gpu) = &self.gpu {
            write!(f, "{}, ", gpu.name)?;
        }
        let Device { model, logical_cores, system, architecture, .. } = self;
        write!(f, "{model}, {logical_cores} cores, {system} {architecture}")
    }
}

impl Device {
    /// This machine with the GPU where that is what runs the networks.
    pub fn of(processor: Processor) -> Self {
        match processor {
            Processor::Cpu => Device::identify(),
            Processor::Cuda => Device { kind: "cuda".into(), gpu: Gpu::identify(), ..Device::identify() },
        }
    }

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
            gpu: None,
        }
    }

    /// A name for files, `amd-epyc-2x-1f0c`; where networks run on a GPU it has the GPU's behind it,
    /// `amd-epyc-2x-1f0c-nvidia-a10-77b2`. So names of one machine begin alike. The digits are those of a hash of all
    /// that [`Device::differences`] looks at.
    pub fn slug(&self) -> String {
        let short = |values: &[(&str, String)]| {
            let all: Vec<&str> = values.iter().map(|(_, value)| value.as_str()).collect();
            hash(&all.join("\n"))[..4].to_string()
        };
        let mut text = format!("{} {}x {}", self.model, self.logical_cores, short(&self.of_machine()));
        if let Some(gpu) = &self.gpu {
            text += &format!(" {} {}", gpu.name, short(&[("", gpu.compared())]));
        }
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

    /// What of the machine changes latency, with its name.
    fn of_machine(&self) -> [(&'static str, String); 5] {
        [
            ("processor", self.model.clone()),
            ("instruction sets", self.flags.clone()),
            ("logical cores", self.logical_cores.to_string()),
            ("architecture", self.architecture.clone()),
            ("system", self.system.clone()),
        ]
    }

    /// What differs between two devices in a way that changes latency; none if they count as the same.
    pub fn differences(&self, other: &Device) -> Option<String> {
        let all = |device: &Device| {
            let gpu = device.gpu.as_ref().map_or_else(|| "none".into(), Gpu::compared);
            let mut all = vec![("GPU", gpu), ("kind", device.kind.clone())];
            all.extend(device.of_machine());
            all
        };
        let list: Vec<String> = all(self)
            .into_iter()
            .zip(all(other))
            .filter(|((_, a), (_, b))| a != b)
            .map(|((what, a), (_, b))| format!("{what} `{a}` there, `{b}` here"))
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

/// [`hash`] of the sorted words.
fn hash_of_words(text: &str) -> String {
    let mut words: Vec<&str> = text.split_whitespace().collect();
    words.sort_unstable();
    words.dedup();
    hash(&words.join(" "))
}

/// FNV-1a in hexadecimal.
fn hash(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
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
        assert_ne!(other.slug(), here.slug());
        assert_ne!(Device { system: "plan9".into(), ..here.clone() }.slug(), here.slug());
        assert!(here.slug().chars().all(|c| c.is_ascii_alphanumeric() || c == '-'), "{}", here.slug());
    }

    #[test]
    fn a_gpu_is_what_nvidia_smi_says() {
        let gpu =
            Gpu::parse("NVIDIA H100 80GB HBM3, 81559, 1980, 570.86.15, 345, 2619, 700.00\n").expect("a GPU");
        assert_eq!((gpu.memory_mib, gpu.clock_mhz, gpu.power_limit_w), (Some(81559), Some(345), Some(700)));
        let small = Gpu::parse("Orin, [N/A], [N/A], [N/A], [N/A], [N/A], [N/A]").expect("a GPU");
        assert_eq!((small.name.as_str(), small.memory_mib, small.driver.as_deref()), ("Orin", None, None));
        assert_eq!((Gpu::parse(""), Gpu::parse("No devices were found")), (None, None));

        let with = |gpu: &Gpu| Device { kind: "cuda".into(), gpu: Some(gpu.clone()), ..Device::identify() };
        // Clocks and drivers change from day to day.
        let later = Gpu { clock_mhz: Some(1980), driver: Some("571".into()), ..gpu.clone() };
        assert_eq!(with(&gpu).differences(&with(&later)), None);
        let text = with(&gpu).differences(&with(&small)).expect("another GPU");
        assert!(
            text.contains("GPU `NVIDIA H100 80GB HBM3 with 81559 MiB") && text.contains("`Orin"),
            "{text}"
        );
        // The machine's name, then the GPU's.
        let (here, slug) = (Device::identify().slug(), with(&gpu).slug());
        assert!(slug.starts_with(&format!("{here}-nvidia-h100-80gb-hbm3-")), "{slug}");
        assert_eq!(with(&later).slug(), slug);
        let other = Gpu { memory_mib: Some(40_000), ..gpu.clone() };
        assert_ne!(with(&other).slug(), slug);
        assert!(with(&gpu).to_string().starts_with("NVIDIA H100 80GB HBM3, "));
        assert!(with(&gpu).differences(&Device::identify()).is_some());
    }

    #[test]
    fn order_of_flags_does_not_count() {
        assert_eq!(hash_of_words("avx2 fma sse"), hash_of_words("sse  avx2 fma fma"));
        assert_ne!(hash_of_words("avx2 fma"), hash_of_words("avx2"));
    }
}
