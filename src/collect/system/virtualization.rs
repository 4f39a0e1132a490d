//! Finds out in which kind of virtual machine or container the host runs. The words and the order of the checks are those of
//! `systemd-detect-virt`. The order matters: for example, a cloud's machine is also a KVM machine.
//!
//! The host is what the agent measures. If the agent runs in a container and measures the host outside of it, the marks of the
//! agent's own container do not count.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use crate::settings::HostRoot;

/// The number of the first PID namespace, `PROC_PID_INIT_INO` of the kernel. Only processes outside of all containers have it,
/// and containers that share this namespace (`pid: host`).
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";
/// Maximum length of the text that is read from a file, in bytes.
const MAX_TEXT: u64 = 64 * 1024;
/// What `systemd-detect-virt` prints without virtualization.
const NONE: &str = "none";
/// A virtual machine of an unknown kind.
const OTHER_MACHINE: &str = "vm-other";
/// A container of an unknown kind.
const OTHER_CONTAINER: &str = "container-other";
const MICROSOFT: &str = "microsoft";
const AMAZON: &str = "amazon";

/// The names that container managers give themselves.
const CONTAINERS: [&str; 9] = [
    "lxc",
    "lxc-libvirt",
    "systemd-nspawn",
    "docker",
    "podman",
    "rkt",
    "wsl",
    "proot",
    "pouch",
];

/// The text with which hypervisors identify themselves to the instruction CPUID.
const SIGNATURES: [(&str, &str); 11] = [
    ("XenVMMXenVMM", "xen"),
    ("KVMKVMKVM", "kvm"),
    ("Linux KVM Hv", "kvm"),
    ("TCGTCGTCGTCG", "qemu"),
    ("VMwareVMware", "vmware"),
    ("Microsoft Hv", MICROSOFT),
    ("bhyve bhyve ", "bhyve"),
    ("QNXQVMBSQG", "qnx"),
    ("ACRNACRNACRN", "acrn"),
    ("SRESRESRESRE", "sre"),
    ("Apple VZ", "apple"),
];

/// The files with the names of the machine's product and vendors, in the order in which they count.
const DMI_FILES: [&str; 5] = [
    "product_name",
    "sys_vendor",
    "board_vendor",
    "bios_vendor",
    "product_version",
];

/// How the text of a file in [`DMI_FILES`] begins in a virtual machine.
const DMI_NAMES: [(&str, &str); 17] = [
    ("KVM", "kvm"),
    ("OpenStack", "kvm"),
    ("KubeVirt", "kvm"),
    ("Amazon EC2", AMAZON),
    ("QEMU", "qemu"),
    ("VMware", "vmware"),
    ("VMW", "vmware"),
    ("innotek GmbH", "oracle"),
    ("VirtualBox", "oracle"),
    ("Oracle Corporation", "oracle"),
    ("Xen", "xen"),
    ("Bochs", "bochs"),
    ("Parallels", "parallels"),
    ("BHYVE", "bhyve"),
    ("Hyper-V", MICROSOFT),
    ("Apple Virtualization", "apple"),
    ("Google Compute Engine", "google"),
];

/// The kinds that CPUID hides. For these, the names of the machine count first.
const DMI_FIRST: [&str; 5] = ["oracle", "xen", AMAZON, "parallels", "google"];

/// Returns the kind of virtualization of the host, or `none` for real hardware. Returns none if a file cannot be read.
pub(super) fn detect(host: &HostRoot) -> Option<&'static str> {
    let root = Path::new("/");
    let part = if is_in_initial_pid_namespace(root) {
        Part::Kernel
    } else if *host == HostRoot::default() {
        Part::Everything
    } else {
        Part::HostFiles(host.directory())
    };
    if let Some(container) = container(root, part) {
        return Some(container);
    }
    machine(root, hypervisor_signature().as_deref()).ok()
}

/// Whether the agent is in the first PID namespace, and therefore in no container or in one that shares the host's processes.
/// Also true if the kernel does not tell.
pub(super) fn is_in_initial_pid_namespace(root: &Path) -> bool {
    let namespace = fs::read_link(root.join("proc/self/ns/pid"));
    namespace.map_or(true, |name| name == Path::new(INITIAL_PID_NAMESPACE))
}

/// The marks of a container that count.
#[derive(Debug, Clone, Copy)]
enum Part<'p> {
    /// Only the marks of the kernel. The agent shares the host's processes, so the host is not in a container of its own. A file
    /// such as `/.dockerenv` is then from the agent's own container, or it was copied with an image.
    Kernel,
    /// Also the files that the container manager writes for the system below this directory, which is `HOST_ROOT`. All other
    /// marks can be those of the agent's own container.
    HostFiles(&'p Path),
    /// All marks: the agent's container is the host.
    Everything,
}

/// Returns the kind of container. Returns none outside of containers. `root` is the directory with `proc` and `sys`.
fn container(root: &Path, part: Part<'_>) -> Option<&'static str> {
    let exists = |path: &str| root.join(path).exists();
    // OpenVZ: `/proc/vz` exists on the host and in containers, `/proc/bc` only on the host.
    if exists("proc/vz") && !exists("proc/bc") {
        return Some("openvz");
    }
    let release = read(root, "proc/sys/kernel/osrelease").unwrap_or_default();
    if release.contains("Microsoft") || release.contains("WSL") {
        return Some("wsl");
    }
    let host = match part {
        Part::Kernel => return None,
        Part::HostFiles(host) => host,
        Part::Everything => root,
    };
    let named = |path| read(host, path).ok().filter(|name| !name.is_empty());
    let is_own = matches!(part, Part::Everything);
    let name = named("run/host/container-manager")
        .or_else(|| named("run/systemd/container"))
        .or_else(|| first_process_variable(root).filter(|_| is_own));
    let of_files = || match is_own {
        true if exists("run/.containerenv") => Some("podman"),
        true if exists(".dockerenv") => Some("docker"),
        _ => None,
    };
    match name.as_deref() {
        Some("oci") => Some(of_files().unwrap_or(OTHER_CONTAINER)),
        Some(name) => {
            let known = CONTAINERS.into_iter().find(|known| *known == name);
            Some(known.unwrap_or(OTHER_CONTAINER))
        }
        None => of_files()
            .or_else(|| (is_own && is_in_cgroup_namespace(root)).then_some(OTHER_CONTAINER)),
    }
}

/// Returns the variable `container` of process 1. Only root may read it.
fn first_process_variable(root: &Path) -> Option<String> {
    let mut environment = Vec::new();
    let file = File::open(root.join("proc/1/environ")).ok()?;
    file.take(MAX_TEXT).read_to_end(&mut environment).ok()?;
    let mut variables = environment.split(|byte| *byte == 0);
    let value = variables.find_map(|variable| variable.strip_prefix(b"container="))?;
    let value = String::from_utf8_lossy(value).into_owned();
    (!value.is_empty()).then_some(value)
}

/// Whether the control groups that are visible are only a part of the host's groups. Some files exist only in the host's root
/// group (`release_agent` of v1), others only in other groups (`cgroup.events` and `cgroup.type` of v2).
fn is_in_cgroup_namespace(root: &Path) -> bool {
    let groups = root.join("sys/fs/cgroup");
    let exists = |path: &str| groups.join(path).exists();
    if exists("cgroup.controllers") {
        // Older kernels have no `cgroup.type`, nor this list of features.
        let is_old = !root.join("sys/kernel/cgroup/features").exists();
        return exists("cgroup.events") && (exists("cgroup.type") || is_old);
    }
    exists("systemd") && !exists("systemd/release_agent")
}

/// Returns the kind of virtual machine, or `none` for real hardware. `signature` is the text with which the hypervisor
/// identifies itself to CPUID, none without a hypervisor.
///
/// # Errors
/// Fails if a file exists that cannot be read, and the other files do not tell the kind.
fn machine(root: &Path, signature: Option<&[u8]>) -> io::Result<&'static str> {
    let dmi = dmi(root);
    if let Ok(kind) = &dmi
        && DMI_FIRST.contains(kind)
    {
        return Ok(kind);
    }
    let processor = read_text(root, "proc/cpuinfo")?;
    let vendor = processor
        .lines()
        .find_map(|line| line.strip_prefix("vendor_id\t: "));
    if vendor.is_some_and(|vendor| vendor.starts_with("User Mode Linux")) {
        return Ok("uml");
    }
    let is_xen = root.join("proc/xen").exists();
    let is_dom0 = is_xen && is_xen_dom0(root)?;
    if is_xen && !is_dom0 {
        return Ok("xen");
    }
    let of_processor = signature.map_or(NONE, |signature| {
        let known = SIGNATURES
            .iter()
            .find(|(text, _)| text.as_bytes() == signature);
        known.map_or(OTHER_MACHINE, |(_, kind)| kind)
    });
    // QEMU can pretend to be Hyper-V, so this kind counts last. A kind that is not known counts even less.
    let is_certain = |kind: &str| ![NONE, OTHER_MACHINE, MICROSOFT].contains(&kind);
    if is_certain(of_processor) || is_dom0 {
        return Ok(of_processor);
    }
    let mut is_other = of_processor == OTHER_MACHINE;
    let further = [
        dmi,
        hypervisor_type(root),
        device_tree(root),
        control_program(root),
    ];
    for kind in further {
        match kind? {
            NONE => {}
            OTHER_MACHINE => is_other = true,
            kind => return Ok(kind),
        }
    }
    Ok(match of_processor {
        MICROSOFT => MICROSOFT,
        _ if is_other => OTHER_MACHINE,
        _ => NONE,
    })
}

/// Returns the kind by the names of the machine, and by the bit in the firmware's table that says that there is a hypervisor.
fn dmi(root: &Path) -> io::Result<&'static str> {
    let mut kind = NONE;
    for file in DMI_FILES {
        let text = read(root, &format!("sys/class/dmi/id/{file}"))?;
        let known = DMI_NAMES.iter().find(|(name, _)| text.starts_with(name));
        if let Some((_, known)) = known {
            kind = known;
            break;
        }
    }
    Ok(match (kind, smbios(root)) {
        // Amazon's real hardware has the same names.
        (AMAZON, Some(false)) => NONE,
        (AMAZON, None) if is_bare_metal(&read(root, "sys/class/dmi/id/product_name")?) => NONE,
        (NONE, Some(true)) => OTHER_MACHINE,
        (kind, _) => kind,
    })
}

/// Whether a product's name contains `.metal` at its end or before `-`, such as `c5.metal` and `m7i.metal-24xl`.
fn is_bare_metal(product: &str) -> bool {
    let after = product.split_once(".metal").map(|(_, after)| after);
    after.is_some_and(|after| after.is_empty() || after.starts_with('-'))
}

/// Returns the bit of the firmware's table that is set in virtual machines. Returns none if only root may read the table. The
/// bit is number 4 of the second extension byte of the BIOS characteristics. The standard is DMTF DSP0134, 7.1.2.2.
fn smbios(root: &Path) -> Option<bool> {
    let table = fs::read(root.join("sys/firmware/dmi/entries/0-0/raw")).ok()?;
    let length = *table.get(1)?;
    (length >= 20).then_some(*table.get(19)? & 1 << 4 != 0)
}

/// Whether this is Xen's own control domain, which runs on the real hardware.
fn is_xen_dom0(root: &Path) -> io::Result<bool> {
    /// The number of the bit `XENFEAT_dom0`.
    const DOM0: u32 = 11;
    let features = read(root, "sys/hypervisor/properties/features")?;
    if let Ok(features) = u64::from_str_radix(&features, 16) {
        return Ok(features >> DOM0 & 1 == 1);
    }
    let capabilities = read(root, "proc/xen/capabilities")?;
    Ok(capabilities.split(',').any(|one| one.trim() == "control_d"))
}

fn hypervisor_type(root: &Path) -> io::Result<&'static str> {
    Ok(match read(root, "sys/hypervisor/type")?.as_str() {
        "" => NONE,
        "xen" => "xen",
        _ => OTHER_MACHINE,
    })
}

/// Returns the kind by the firmware's device tree, which machines without ACPI have.
fn device_tree(root: &Path) -> io::Result<&'static str> {
    let tree = root.join("proc/device-tree");
    let exists = |path: &str| tree.join(path).exists();
    if exists("hypervisor/compatible") {
        let hypervisor = read(&tree, "hypervisor/compatible")?;
        return Ok(match hypervisor.trim_end_matches('\0') {
            "linux,kvm" => "kvm",
            xen if xen.contains("xen") => "xen",
            vmware if vmware.contains("vmware") => "vmware",
            _ => OTHER_MACHINE,
        });
    }
    if exists("ibm,partition-name")
        && exists("hmc-managed?")
        && !exists("chosen/qemu,graphic-width")
    {
        return Ok("powervm");
    }
    let entries = fs::read_dir(&tree).into_iter().flatten().flatten();
    let mut names = entries.map(|entry| entry.file_name());
    let has_fw_cfg = names.any(|name| name.to_string_lossy().contains("fw-cfg"));
    let compatible = read(&tree, "compatible")?;
    let is_pseries = compatible.trim_end_matches('\0') == "qemu,pseries";
    Ok(if has_fw_cfg || is_pseries {
        "qemu"
    } else {
        NONE
    })
}

/// Returns the kind by the control program of an IBM mainframe.
fn control_program(root: &Path) -> io::Result<&'static str> {
    let information = read_text(root, "proc/sysinfo")?;
    let mut lines = information.lines();
    let program = lines.find_map(|line| line.strip_prefix("VM00 Control Program:"));
    Ok(match program.map(str::trim) {
        None => NONE,
        Some(program) if program.split(' ').next() == Some("z/VM") => "zvm",
        Some(_) => "kvm",
    })
}

/// Returns the first line of a file. Returns an empty text if there is no such file.
///
/// # Errors
/// Fails if the file exists, but cannot be read.
fn read(root: &Path, path: &str) -> io::Result<String> {
    let text = read_text(root, path)?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// Returns the beginning of a file. Returns an empty text if there is no such file.
fn read_text(root: &Path, path: &str) -> io::Result<String> {
    let mut text = Vec::new();
    match File::open(root.join(path)) {
        Ok(file) => file.take(MAX_TEXT).read_to_end(&mut text)?,
        Err(error) if error.kind() == ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Returns the text with which the hypervisor identifies itself. Returns none without a hypervisor.
#[cfg(target_arch = "x86_64")]
fn hypervisor_signature() -> Option<Vec<u8>> {
    use std::arch::x86_64::__cpuid;

    // Real processors never set the highest bit of ECX.
    if __cpuid(1).ecx >> 31 == 0 {
        return None;
    }
    let leaf = __cpuid(0x4000_0000);
    let text = [leaf.ebx, leaf.ecx, leaf.edx]
        .map(u32::to_le_bytes)
        .concat();
    let end = text.iter().rposition(|byte| *byte != 0);
    Some(text[..end.map_or(0, |last| last + 1)].to_vec())
}

/// Other processors have no such instruction.
#[cfg(not(target_arch = "x86_64"))]
fn hypervisor_signature() -> Option<Vec<u8>> {
    None
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use tempfile::TempDir;

    use super::{Part, container, is_in_initial_pid_namespace, machine};

    /// Files with their texts.
    type Files = &'static [(&'static str, &'static str)];

    fn tree(files: Files) -> TempDir {
        let root = TempDir::new().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const NAME: &str = "sys/class/dmi/id/product_name";
    const VENDOR: &str = "sys/class/dmi/id/sys_vendor";
    const SMBIOS: &str = "sys/firmware/dmi/entries/0-0/raw";
    const IN_MACHINE: &str = "\0\x18________________________\0\0";
    const FEATURES: &str = "sys/hypervisor/properties/features";

    /// The texts are those of real machines, as the tests and the code of systemd (`src/basic/virt.c`) describe them.
    #[test]
    #[rustfmt::skip]
    fn machines_have_the_words_of_systemd_detect_virt() {
        let table: &[(Files, Option<&str>, &str)] = &[
            (&[], None, "none"),
            (&[(NAME, "ThinkPad X1\n"), (VENDOR, "LENOVO\n")], None, "none"),
            (&[], Some("KVMKVMKVM"), "kvm"),
            (&[], Some("Linux KVM Hv"), "kvm"),
            (&[], Some("TCGTCGTCGTCG"), "qemu"),
            (&[], Some("QNXQVMBSQG"), "qnx"),
            (&[], Some("somebody new"), "vm-other"),
            // The processor says that it is a machine of QEMU's, the name that it is KVM. CPUID counts.
            (&[(NAME, "KVM\n"), (VENDOR, "QEMU\n")], Some("TCGTCGTCGTCG"), "qemu"),
            // Without CPUID, as on aarch64, the product counts before the vendor.
            (&[(NAME, "KVM Virtual Machine\n"), (VENDOR, "QEMU\n")], None, "kvm"),
            (&[(NAME, "Standard PC\n"), (VENDOR, "QEMU\n")], None, "qemu"),
            // These use KVM, and are more than KVM.
            (&[(NAME, "Google Compute Engine\n")], Some("KVMKVMKVM"), "google"),
            (&[(NAME, "VirtualBox\n"), (VENDOR, "innotek GmbH\n")], Some("KVMKVMKVM"), "oracle"),
            (&[(NAME, "c5.large\n"), (VENDOR, "Amazon EC2\n")], Some("KVMKVMKVM"), "amazon"),
            // Amazon's machines without a hypervisor: by the firmware's table, or by the name.
            (&[(NAME, "c5.metal\n"), (VENDOR, "Amazon EC2\n")], None, "none"),
            (&[(NAME, "m7i.metal-24xl\n"), (VENDOR, "Amazon EC2\n")], None, "none"),
            (&[(NAME, "m7i.metallic\n"), (VENDOR, "Amazon EC2\n")], None, "amazon"),
            (&[(NAME, "x\n"), (VENDOR, "Amazon EC2\n"), (SMBIOS, "\0\x18__________________________")], None, "amazon"),
            (&[(NAME, "x\n"), (VENDOR, "Amazon EC2\n"), (SMBIOS, "\0\x18\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x08")], None, "none"),
            (&[(SMBIOS, "\0\x18\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x10")], None, "vm-other"),
            (&[(SMBIOS, IN_MACHINE), (NAME, "VMware7,1\n")], None, "vmware"),
            // A table that is too short says nothing.
            (&[(SMBIOS, "\0\x12\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x10")], None, "none"),
            // QEMU pretends to be Hyper-V.
            (&[(VENDOR, "QEMU\n")], Some("Microsoft Hv"), "qemu"),
            (&[(VENDOR, "Microsoft Corporation\n")], Some("Microsoft Hv"), "microsoft"),
            (&[("sys/class/dmi/id/product_version", "Hyper-V UEFI Release v4.1\n")], None, "microsoft"),
            (&[("sys/class/dmi/id/bios_vendor", "BHYVE\n")], Some("bhyve bhyve "), "bhyve"),
            (&[("sys/class/dmi/id/board_vendor", "Oracle Corporation\n")], None, "oracle"),
            (&[(NAME, "Apple Virtualization Generic Platform\n")], None, "apple"),
            (&[("proc/cpuinfo", "processor\t: 0\nvendor_id\t: User Mode Linux\n")], Some("KVMKVMKVM"), "uml"),
            (&[("proc/cpuinfo", "processor\t: 0\nvendor_id\t: GenuineIntel\n")], None, "none"),
            (&[("proc/xen/capabilities", "")], Some("XenVMMXenVMM"), "xen"),
            (&[("proc/xen/capabilities", "control_d\n")], None, "none"),
            (&[("proc/xen/capabilities", "control_d\n")], Some("KVMKVMKVM"), "kvm"),
            (&[("proc/xen/x", ""), (FEATURES, "00000705\n")], None, "xen"),
            (&[("proc/xen/x", ""), (FEATURES, "00000f05\n"), ("sys/hypervisor/type", "xen\n")], None, "none"),
            (&[("sys/hypervisor/type", "xen\n")], None, "xen"),
            (&[("sys/hypervisor/type", "new\n")], None, "vm-other"),
            (&[("proc/device-tree/hypervisor/compatible", "linux,kvm\0")], None, "kvm"),
            (&[("proc/device-tree/hypervisor/compatible", "xen,xen-4.11\0xen,xen\0")], None, "xen"),
            (&[("proc/device-tree/hypervisor/compatible", "new\0")], None, "vm-other"),
            (&[("proc/device-tree/fw-cfg@9020000/compatible", "x\0")], None, "qemu"),
            (&[("proc/device-tree/compatible", "qemu,pseries\0")], None, "qemu"),
            (&[("proc/device-tree/compatible", "raspberrypi,4-model-b\0")], None, "none"),
            (&[("proc/device-tree/ibm,partition-name", "x"), ("proc/device-tree/hmc-managed?", "")], None, "powervm"),
            (&[("proc/sysinfo", "Manufacturer: IBM\nVM00 Control Program: z/VM    7.2.0\n")], None, "zvm"),
            (&[("proc/sysinfo", "Manufacturer: IBM\nVM00 Control Program: KVM/Linux\n")], None, "kvm"),
            (&[("proc/sysinfo", "Manufacturer: IBM\n")], None, "none"),
        ];
        for (files, signature, expected) in table {
            let root = tree(files);
            let found = machine(root.path(), signature.map(str::as_bytes)).unwrap();
            assert_eq!(found, *expected, "{files:?} {signature:?}");
        }
    }

    #[test]
    fn a_machine_whose_files_cannot_be_read_is_not_known() {
        // Reading a folder fails, also for root.
        let root = tree(&[("sys/class/dmi/id/product_name/x", "")]);
        machine(root.path(), None).unwrap_err();
        assert_eq!(machine(root.path(), Some(b"KVMKVMKVM")).unwrap(), "kvm");
    }

    #[test]
    #[rustfmt::skip]
    fn containers_have_the_words_of_systemd_detect_virt() {
        const MARK: &str = "run/systemd/container";
        const DOCKER: (&str, &str) = (".dockerenv", "");
        const RELEASE: &str = "proc/sys/kernel/osrelease";
        const ENVIRONMENT: &str = "proc/1/environ";
        // The expected words: all marks count; only the files of the system in HOST_ROOT; only the marks of the kernel.
        let table: &[(Files, [Option<&str>; 3])] = &[
            (&[], [None; 3]),
            (&[(RELEASE, "6.1.0-18-amd64\n")], [None; 3]),
            (&[(RELEASE, "5.15.90.1-microsoft-standard-WSL2\n")], [Some("wsl"); 3]),
            (&[("proc/vz/x", "")], [Some("openvz"); 3]),
            (&[("proc/vz/x", ""), ("proc/bc/x", "")], [None; 3]),
            (&[(MARK, "lxc\n")], [Some("lxc"), Some("lxc"), None]),
            (&[(MARK, "systemd-nspawn\n"), DOCKER], [Some("systemd-nspawn"), Some("systemd-nspawn"), None]),
            (&[(MARK, "lxc\n"), ("run/host/container-manager", "podman\n")], [Some("podman"), Some("podman"), None]),
            (&[(MARK, "somebody-new\n")], [Some("container-other"), Some("container-other"), None]),
            (&[(MARK, "oci\n"), DOCKER], [Some("docker"), Some("container-other"), None]),
            (&[(MARK, "oci\n")], [Some("container-other"), Some("container-other"), None]),
            (&[(MARK, "\n"), DOCKER], [Some("docker"), None, None]),
            (&[DOCKER], [Some("docker"), None, None]),
            (&[DOCKER, ("run/.containerenv", "")], [Some("podman"), None, None]),
            (&[(ENVIRONMENT, "PATH=/bin\0container=lxc\0TERM=xterm\0")], [Some("lxc"), None, None]),
            (&[(ENVIRONMENT, "PATH=/bin\0container=\0"), DOCKER], [Some("docker"), None, None]),
            (&[(ENVIRONMENT, "mycontainer=lxc\0")], [None; 3]),
            // A namespace of control groups: v1, v2, v2 of old kernels, and the roots of v1 and v2.
            (&[("sys/fs/cgroup/systemd/tasks", "")], [Some("container-other"), None, None]),
            (&[("sys/fs/cgroup/systemd/release_agent", "")], [None; 3]),
            (
                &[("sys/fs/cgroup/cgroup.controllers", ""), ("sys/fs/cgroup/cgroup.events", ""), ("sys/fs/cgroup/cgroup.type", ""),
                  ("sys/kernel/cgroup/features", "")],
                [Some("container-other"), None, None],
            ),
            (&[("sys/fs/cgroup/cgroup.controllers", ""), ("sys/fs/cgroup/cgroup.events", "")], [Some("container-other"), None, None]),
            (&[("sys/fs/cgroup/cgroup.controllers", ""), ("sys/kernel/cgroup/features", "")], [None; 3]),
        ];
        for (files, expected) in table {
            let root = tree(files);
            let parts = [
                Part::Everything,
                Part::HostFiles(root.path()),
                Part::Kernel,
            ];
            let found = parts.map(|part| container(root.path(), part));
            assert_eq!(found, *expected, "{files:?}");
        }
    }

    #[test]
    fn the_files_of_the_host_are_below_its_root() {
        let own = tree(&[("run/systemd/container", "docker\n"), (".dockerenv", "")]);
        let host = tree(&[("run/systemd/container", "lxc\n")]);
        let part = Part::HostFiles(host.path());
        assert_eq!(container(own.path(), part), Some("lxc"));
    }

    #[test]
    fn the_first_pid_namespace_has_a_fixed_number() {
        let root = tree(&[("proc/self/ns/other", "")]);
        let link = root.path().join("proc/self/ns/pid");
        assert!(is_in_initial_pid_namespace(root.path()));
        for (target, expected) in [("pid:[4026531836]", true), ("pid:[4026532251]", false)] {
            symlink(target, &link).unwrap();
            assert_eq!(is_in_initial_pid_namespace(root.path()), expected);
            fs::remove_file(&link).unwrap();
        }
        assert!(is_in_initial_pid_namespace(Path::new("/nowhere")));
    }

    #[test]
    fn fuzz_virtualization() {
        let files: &[&str] = &[
            "proc/1/environ",
            "proc/cpuinfo",
            "proc/device-tree/compatible",
            "proc/device-tree/hypervisor/compatible",
            "proc/sysinfo",
            "proc/xen/capabilities",
            "run/systemd/container",
            SMBIOS,
            FEATURES,
            VENDOR,
        ];
        let root = TempDir::new().unwrap();
        for file in files {
            fs::create_dir_all(root.path().join(file).parent().unwrap()).unwrap();
        }
        let seeds: [&[u8]; 3] = [
            b"PATH=/bin\0container=lxc\0",
            b"VM00 Control Program: z/VM 7\nvendor_id\t: User Mode Linux\n",
            b"00000705\n",
        ];
        crate::fuzzing::run("virtualization", &seeds, |bytes| {
            for file in files {
                fs::write(root.path().join(file), bytes).unwrap();
            }
            let _ = machine(root.path(), Some(bytes));
            let _ = container(root.path(), Part::Everything);
        });
    }
}
