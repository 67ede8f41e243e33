/** What a virtual machine's own configuration says: limits, its IOMMU, and what goes past that. */
import { pciName } from "../iommu/pci-function.ts";
import { sizeText } from "../units.ts";
import { mappingFindings } from "./bar-mappings.ts";
import { type Finding, finding } from "./findings.ts";
import type { VirtualMachine, VmDevice, VmLimits } from "./vm.ts";

/** `dma_entry_limit` where nobody changed it. */
const ENTRY_LIMIT = 65_535;
const IGNORED_MAX = 32;

/** All that can be said without, or with little of, the host. */
export function vmFindings(vm: VirtualMachine, limits: VmLimits): Finding[] {
  return [
    ...memlock(vm, limits),
    ...mappings(vm, limits.entryLimit ?? ENTRY_LIMIT),
    ...withoutCachingMode(vm),
    ...aboutIommu(vm),
    ...behindBridge(vm),
    ...mappingFindings(vm.barMappings ?? []),
    ...vm.devices.flatMap((device) => pastIommu(vm, device)),
    ...[...vm.ignored]
      .sort((a, b) => Number(b.isRefused ?? false) - Number(a.isRefused ?? false))
      .slice(0, IGNORED_MAX)
      .map(({ argument, why, isRefused }) =>
        finding(isRefused === true ? "argument-refused" : "argument-ignored", {
          message: `\`${argument}\`: ${why}`,
          evidence: [argument],
        }),
      ),
  ];
}

/** Devices whose DMA VFIO maps. */
function throughVfio({ devices }: VirtualMachine): VmDevice[] {
  return devices.filter(({ path }) => path === "type1" || path === "iommufd");
}

/**
 * Address spaces that all memory is pinned for: one of each device behind the guest's IOMMU, which
 * starts with everything mapped, and one for all others.
 */
function addressSpaces(vm: VirtualMachine): number {
  const passed = throughVfio(vm);
  const own = passed.filter(({ exemption }) => exemption === null).length;
  return own + (own < passed.length ? 1 : 0);
}

function memlock(vm: VirtualMachine, { memlockBytes, host }: VmLimits): Finding[] {
  const limit = memlockBytes ?? vm.memlockBytes;
  const spaces = addressSpaces(vm);
  if (limit === null || spaces === 0) return [];
  const wanted = new Set(vm.devices.map((one) => one.host));
  const bars = (host?.functions ?? [])
    .filter((one) => wanted.has(pciName(one)))
    .flatMap((one) => one.bars)
    .filter(({ index, kind }) => kind !== "io" && index <= 5)
    .reduce((sum, { bytes }) => sum + bytes, 0n);
  const memory = vm.memoryBytes * BigInt(spaces);
  if (limit >= memory + bars) return [];
  const code = limit < memory ? "memlock-too-small" : "memlock-tight";
  return [
    finding(code, {
      message: `memory ${sizeText(memory)}, BARs ${sizeText(bars)}; the limit is ${sizeText(limit)}`,
      evidence: [
        `${sizeText(vm.memoryBytes)} of memory, pinned for ${spaces} address space${spaces === 1 ? "" : "s"}`,
        `RLIMIT_MEMLOCK ${limit} bytes`,
      ],
      devices: throughVfio(vm).map((one) => one.host ?? "?"),
      next: limitNext(vm, (memory + bars) / 1024n),
    }),
  ];
}

/** The command that raises the limit; none for a domain whose name a shell would take apart. */
function limitNext({ libvirt }: VirtualMachine, kib: bigint): string | null {
  if (libvirt === null) return `ulimit -l ${kib}`;
  const { domain } = libvirt;
  return /^[\w.+-]+$/.test(domain) ? `virsh memtune ${domain} --hard-limit ${kib} --config` : null;
}

function mappings(vm: VirtualMachine, limit: number): Finding[] {
  const { viommu } = vm;
  if (viommu === null) return [];
  const pages = vm.memoryBytes / BigInt(viommu.granuleBytes);
  const concerned = vm.devices.filter(
    ({ path, exemption }) => path === "type1" && exemption === null,
  );
  if (concerned.length === 0 || pages <= BigInt(limit)) return [];
  return [
    finding("too-many-mappings", {
      message: `up to ${pages} mappings of ${sizeText(viommu.granuleBytes)}, and a container takes ${limit}`,
      evidence: [
        `${sizeText(vm.memoryBytes)} of memory in pages of ${sizeText(viommu.granuleBytes)}`,
        `\`${viommu.argument}\` in front of a device on a type1 container`,
      ],
      devices: concerned.map((one) => one.host ?? "?"),
      next: "cat /sys/module/vfio_iommu_type1/parameters/dma_entry_limit",
    }),
  ];
}

/** QEMU hw/i386/intel_iommu.c:vtd_machine_done_notify_one. */
function withoutCachingMode(vm: VirtualMachine): Finding[] {
  const { viommu } = vm;
  const passed = throughVfio(vm);
  if (viommu?.cachingMode !== false || viommu.firstLevel || passed.length === 0) return [];
  const [first] = passed;
  return [
    finding("viommu-caching-mode", {
      message: `QEMU does not start: ${viommu.name} has no caching mode, and ${first!.driver} is assigned`,
      evidence: [`\`${viommu.argument}\``, ...passed.map((one) => `\`${one.argument}\``)],
      devices: passed.map((one) => one.host ?? "?"),
    }),
  ];
}

function aboutIommu({ viommu }: VirtualMachine): Finding[] {
  if (viommu === null) return [];
  const evidence = [`\`${viommu.argument}\``];
  const found: Finding[] = [];
  if (viommu.cachingMode === true && !viommu.firstLevel) {
    found.push(
      finding("strict-by-caching-mode", {
        message: `${viommu.name} makes the guest invalidate strictly`,
        evidence,
        next: "dmesg | grep -e 'batching disallowed' -e 'invalidation policy'",
      }),
    );
  }
  if (viommu.bootBypass === true) {
    found.push(
      finding("boot-bypass", {
        message: `${viommu.name} lets everything through until its driver runs`,
        evidence: [...evidence, "boot-bypass is on by default"],
        next: "iommukit explain boot-bypass",
      }),
    );
  }
  return found;
}

/**
 * Functions on a conventional bus that is no root bus: QEMU hw/pci/pci.c:
 * pci_device_get_iommu_bus_devfn, Linux drivers/iommu/virtio-iommu.c:viommu_probe_endpoint.
 */
function behindBridge({ viommu, machine }: VirtualMachine): Finding[] {
  if (viommu?.kind !== "virtio") return [];
  const { functions, hostBridges } = machine;
  const isCovered = (bus: number) =>
    hostBridges.some((one) => one.firstBus <= bus && bus <= one.lastBus && !one.bypassesIommu);
  const found = functions.filter(({ bridge, bus }) => {
    const above = functions[bridge]?.portType;
    return (above === "conventional" || above === "pcie-to-pci-bridge") && isCovered(bus);
  });
  const first = found[0];
  if (first === undefined) return [];
  const above = functions[first.bridge]!;
  return [
    finding("viommu-behind-bridge", {
      message: `${viommu.name} will not work: ${pciName(first)} is behind ${pciName(above)}, a conventional bridge`,
      evidence: [`\`${viommu.argument}\``, `${pciName(above)} is a ${above.portType} bridge`],
      devices: found.map(pciName),
      next: "ls /sys/kernel/iommu_groups",
    }),
  ];
}

function pastIommu({ viommu }: VirtualMachine, device: VmDevice): Finding[] {
  const { exemption, bdf, driver, argument } = device;
  if (viommu === null || bdf === null) return [];
  const devices = [bdf];
  const evidence = [`\`${argument}\``, `\`${viommu.argument}\``];
  if (exemption === "bypassed-bus" || exemption === "not-covered") {
    const why = exemption === "bypassed-bus" ? "its root bus bypasses it" : "no range covers it";
    const message = `${viommu.name} does not translate ${driver} at ${bdf}: ${why}`;
    return [finding("viommu-exempt", { message, evidence, devices })];
  }
  if (exemption !== "no-access-platform") return [];
  const message = `${driver} at ${bdf} uses addresses of memory, past ${viommu.name}`;
  const next = "iommukit explain no-access-platform";
  return [finding("no-access-platform", { message, evidence, devices, next })];
}
