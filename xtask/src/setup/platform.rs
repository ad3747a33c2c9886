//! The platforms there are wheels for.

use std::env::consts;

use crate::failure::Failure;

/// A platform, as far as wheels and libraries differ.
#[derive(Debug)]
pub(super) struct Platform {
    /// Name for people and for the stamp.
    pub(super) name: &'static str,
    /// `std::env::consts::OS` and `ARCH`.
    os: &'static str,
    arch: &'static str,
    /// The wheel tags pip may choose from. pip takes these literally, so the older ones are listed too.
    pub(super) tags: &'static [&'static str],
    /// Whether lana's developers have run setup there.
    pub(super) tested: bool,
}

impl Platform {
    /// Whether shared libraries are ELF files, `lib*.so*`; else they are `lib*.dylib`.
    pub(super) fn is_linux(&self) -> bool {
        self.os == "linux"
    }
}

/// Every platform there are wheels for.
pub(super) static PLATFORMS: &[Platform] = &[
    Platform {
        name: "linux-x86_64",
        os: "linux",
        arch: "x86_64",
        tags: &[
            "manylinux_2_28_x86_64",
            "manylinux_2_27_x86_64",
            "manylinux_2_25_x86_64",
            "manylinux_2_17_x86_64",
            "manylinux2014_x86_64",
        ],
        tested: true,
    },
    Platform {
        name: "linux-aarch64",
        os: "linux",
        arch: "aarch64",
        tags: &[
            "manylinux_2_28_aarch64",
            "manylinux_2_27_aarch64",
            "manylinux_2_25_aarch64",
            "manylinux_2_17_aarch64",
            "manylinux2014_aarch64",
        ],
        tested: false,
    },
    Platform {
        name: "macos-aarch64",
        os: "macos",
        arch: "aarch64",
        tags: &["macosx_14_0_arm64", "macosx_13_0_arm64", "macosx_12_0_arm64", "macosx_11_0_arm64"],
        tested: false,
    },
];

/// The platform this runs on.
pub(super) fn detect() -> anyhow::Result<&'static Platform> {
    find(consts::OS, consts::ARCH, cfg!(target_env = "musl"))
}

fn find(os: &str, arch: &str, musl: bool) -> anyhow::Result<&'static Platform> {
    let found = PLATFORMS.iter().find(|platform| platform.os == os && platform.arch == arch && !musl);
    found.ok_or_else(|| {
        let c_library = if musl { " with musl" } else { "" };
        let names: Vec<_> = PLATFORMS.iter().map(|platform| platform.name).collect();
        Failure::error(
            format!(
                "there are no libtorch and ONNX Runtime wheels for {os}-{arch}{c_library} (there are for {})",
                names.join(", "),
            ),
            "build libtorch 2.11 and ONNX Runtime yourself and set LIBTORCH and ORT_DYLIB_PATH",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_platforms_are_found() {
        assert_eq!(find("linux", "x86_64", false).unwrap().name, "linux-x86_64");
        assert_eq!(find("macos", "aarch64", false).unwrap().name, "macos-aarch64");
    }

    #[test]
    fn others_are_told_what_to_do() {
        let error = find("windows", "x86_64", false).unwrap_err();
        let text = crate::failure::render(&error);
        assert!(text.contains("windows-x86_64"), "{text}");
        assert!(text.contains("\nhint: ") && text.contains("LIBTORCH"), "{text}");
        assert!(find("linux", "x86_64", true).unwrap_err().to_string().contains("musl"));
    }
}
