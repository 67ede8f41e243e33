/**
 * The arguments of a QEMU whose devices are served: memory that can be shared, a slot for each
 * vfio-user device, the VIOT, and what to boot.
 *
 * Source: QEMU 11.1 `hw/vfio-user/pci.c`; a device is given as JSON, since its socket is a
 * structure.
 */
import type { LiveDisk, LiveMachine, RootPort, Slot } from "../machine/live-machine.ts";

/** Where the files of a machine lie. */
export interface MachineFiles {
  /** The socket of a device, by its name. */
  readonly socketOf: (name: string) => string;
  /** The VIOT, null when there is none. */
  readonly viot: string | null;
  /** File for the guest's console; null: our terminal, with QEMU's monitor behind Ctrl-A c. */
  readonly console: string | null;
}

const MEBIBYTE = 2 ** 20;

/** Arguments that make QEMU the machine, without the program itself. */
export function qemuArguments(machine: LiveMachine, files: MachineFiles): string[] {
  const { qemu, cpus, memoryBytes, iommu, disks, ports } = machine;
  const single = machine.nodes.length === 0;
  const board = single ? "q35,memory-backend=ram" : "q35";
  return [
    ...["-name", machine.name],
    ...["-accel", qemu.accelerator, "-cpu", qemu.cpu, "-smp", String(cpus)],
    ...["-m", `${memoryBytes / MEBIBYTE}M`, "-machine", board],
    ...memoryArguments(machine),
    ...["-nodefaults", "-no-user-config", "-nographic"],
    ...consoleArguments(files.console),
    ...ports.flatMap(portArguments),
    ...(files.viot === null ? [] : ["-acpitable", `file=${commas(files.viot)}`]),
    ...(iommu === null ? [] : deviceArguments(iommu.name, iommu.slot, files)),
    ...disks.flatMap((disk) => diskArguments(disk, machine, files)),
    ...(qemu.kernel === null ? [] : kernelArguments(qemu)),
    ...qemu.extra,
  ];
}

function consoleArguments(file: string | null): string[] {
  if (file === null) return ["-serial", "mon:stdio"];
  return ["-serial", `file:${commas(file)}`, "-monitor", "none"];
}

/** Shared memory alone can be mapped by another process; sealed, it cannot shrink under it. */
function memoryArguments({ nodes, memoryBytes }: LiveMachine): string[] {
  const backend = (id: string, bytes: number, host: number | null) => {
    const policy = host === null ? "" : `,host-nodes=${host},policy=bind`;
    return `memory-backend-memfd,id=${id},size=${bytes / MEBIBYTE}M,share=on${policy}`;
  };
  if (nodes.length === 0) return ["-object", backend("ram", memoryBytes, null)];
  return nodes.flatMap(({ bytes, cpus, hostNode }, index) => [
    ...["-object", backend(`ram${index}`, bytes, hostNode)],
    ...["-numa", [`node,memdev=ram${index}`, ...cpus.map((cpu) => `cpus=${cpu}`)].join(",")],
  ]);
}

function portArguments({ name, device }: RootPort, index: number): string[] {
  const properties = `id=${name},bus=pcie.0,addr=0x${device.toString(16)}`;
  return ["-device", `pcie-root-port,${properties},chassis=${index + 1},slot=${index + 1}`];
}

function diskArguments(disk: LiveDisk, machine: LiveMachine, files: MachineFiles): string[] {
  return deviceArguments(disk.name, disk.slot, files, machine.qemu.boot === disk.name);
}

function deviceArguments(id: string, slot: Slot, files: MachineFiles, isBooted = false): string[] {
  const device = {
    driver: "vfio-user-pci",
    id,
    bus: slot.port ?? "pcie.0",
    addr: `0x${slot.device.toString(16)}`,
    // No option ROM is served; without this QEMU probes for one and warns.
    rombar: 0,
    ...(isBooted ? { bootindex: 0 } : {}),
    socket: { type: "unix", path: files.socketOf(id) },
  };
  return ["-device", JSON.stringify(device)];
}

function kernelArguments({ kernel, initrd, append }: LiveMachine["qemu"]): string[] {
  return [
    ...["-kernel", kernel ?? ""],
    ...(initrd === null ? [] : ["-initrd", initrd]),
    ...["-append", append === "" ? "console=ttyS0" : append],
  ];
}

/** A comma in a value of QEMU's option syntax is written twice. */
function commas(text: string): string {
  return text.replaceAll(",", ",,");
}
