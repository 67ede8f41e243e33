/**
 * What is known of the kernel: release, the words of its command line that concern DMA, and what it
 * decided at boot.
 *
 * Source: Linux Documentation/admin-guide/kernel-parameters.txt; drivers/iommu/iommu.c:
 * iommu_subsys_init (the two messages).
 */
import type { KernelFacts } from "../topology/machine.ts";
import type { HostTree } from "./tree.ts";

/** Parameters that change DMA, PCI, NUMA or huge pages; all others are nobody's business. */
const parameters =
  /^(iommu([._].*)?|intel_iommu|amd_iommu\w*|arm-smmu(-v3)?\..*|pci(e\w*)?|vfio[\w.-]*|numa(_balancing)?|acpi(_enforce_resources)?|efi=|hugepages\w*|hugepagesz|default_hugepagesz|transparent_hugepage|swiotlb|mem_encrypt|kvm[\w-]*\..*|deferred_probe_timeout|irqchip\..*|intremap|noats|virtio_mmio\.device)$/;

/** Keeps the parameters that concern DMA. */
export function cleanCommandLine(text: string): string {
  return text
    .split(/\s+/)
    .filter((word) => parameters.test(word.split("=", 1)[0]!))
    .join(" ");
}

/** Keeps release and architecture. */
export function cleanVersion(text: string): string {
  const release = /^Linux version (\S{1,128})/.exec(text)?.[1];
  if (release === undefined) return "";
  const architecture = /\b(x86_64|aarch64|riscv64|loongarch64)\b/.exec(text)?.[1];
  return `Linux version ${release}${architecture === undefined ? "" : ` (${architecture})`}`;
}

const bootMessages = [/iommu: Default domain type: \w+/, /TLB invalidation policy: \w+ mode/];

/** Keeps two lines of the boot messages. */
export function cleanMessages(text: string): string {
  return bootMessages
    .map((pattern) => pattern.exec(text)?.[0])
    .filter((found) => found !== undefined)
    .join("\n");
}

/** The kernel's facts, and the architecture it was built for. */
export function readKernel(tree: HostTree): { kernel: KernelFacts; architecture: string | null } {
  const version = tree.text("/proc/version", cleanVersion) ?? "";
  const messages = tree.text("/dmesg.txt", cleanMessages) ?? "";
  const type = /Default domain type: (\w+)/.exec(messages)?.[1];
  const policy = /policy: (\w+) mode/.exec(messages)?.[1];
  const commandLine = tree.text("/proc/cmdline", cleanCommandLine);
  return {
    kernel: {
      release: /^Linux version (\S+)/.exec(version)?.[1] ?? null,
      commandLine,
      isStrict: policy === undefined ? null : policy === "strict",
      isPassthrough: type === undefined ? null : type === "Passthrough",
    },
    // The version names it only where the compiler's name does; since 6.1 there is a file.
    architecture: /\((\w+)\)$/.exec(version)?.[1] ?? tree.text("/proc/sys/kernel/arch"),
  };
}
