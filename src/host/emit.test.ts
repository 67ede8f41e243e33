import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { itNeeds } from "../../test/support/tools.ts";
import type { Machine } from "../topology/machine.ts";
import { emitVm } from "./emit.ts";
import { type EmitOptions, emitIommus } from "./emit-plan.ts";
import { vmOfDomain } from "./libvirt.ts";
import { readCommand } from "./qemu-command.ts";
import { buildVm } from "./qemu-vm.ts";
import { splitWords } from "./qemu-words.ts";
import { realHost } from "./real-hosts.suite.ts";
import { readHost } from "./sysfs.ts";

const host = readHost(realHost("q35-2node-intel-iommu")).machine;
const arm = readHost(realHost("virt-2node-smmuv3")).machine;
const chosen = ["0000:81:00.0", "0000:21:00.0", "0000:82:00.0"];
const places = [
  { host: "0000:81:00.0", bdf: "0000:41:00.0" },
  { host: "0000:21:00.0", bdf: "0000:21:00.0" },
  { host: "0000:82:00.0", bdf: "0000:42:00.0" },
];
const words = (text: string) => splitWords(text, "emitted");
const read = (text: string) =>
  buildVm(readCommand(words(`qemu -nodefaults ${text}`), "emitted"), host);
const qemu = (options: EmitOptions = {}) => read(emitVm(host, chosen, "qemu", options));
const libvirt = (options: EmitOptions = {}) =>
  vmOfDomain(emitVm(host, chosen, "libvirt", options), "emitted", host);

describe.each([
  ["qemu", qemu],
  ["libvirt", libvirt],
] as const)("what gives a VM its host's topology, for %s", (_form, vmWith) => {
  it("puts each device on a guest node whose memory is bound to the device's node", () => {
    const vm = vmWith();
    expect(vm.ignored).toEqual([]);
    expect(vm.devices).toMatchObject(places);
    expect(vm.devices.map(({ index }) => vm.machine.functions[index]!.node)).toEqual([1, 0, 1]);
    expect(vm.nodes.map(({ hostNodes }) => hostNodes)).toEqual([[0], [1]]);
    expect(vm.machine.nodes.map(({ distances }) => distances)).toEqual(
      host.nodes.map(({ distances }) => distances),
    );
  });

  it("has the CPUs of the host's nodes and half of their memory", () => {
    const { machine } = vmWith();
    expect(machine.nodes.map(({ cpus }) => cpus.length)).toEqual([1, 1]);
    const half = host.nodes.map(({ memoryBytes }) => memoryBytes / 2n);
    for (const [at, { memoryBytes }] of machine.nodes.entries()) {
      expect(half[at]! - memoryBytes).toBeGreaterThanOrEqual(0n);
      expect(half[at]! - memoryBytes).toBeLessThan(128n << 20n);
    }
  });

  it("has the memory and the CPUs that were asked for, shared out", () => {
    const { machine, memoryBytes } = vmWith({ memoryBytes: 12n << 30n, cpus: 6 });
    expect(memoryBytes).toBe(12n << 30n);
    expect(machine.nodes.map(({ memoryBytes }) => memoryBytes)).toEqual([6n << 30n, 6n << 30n]);
    expect(machine.nodes.map(({ cpus }) => cpus)).toEqual([
      [0, 1, 2],
      [3, 4, 5],
    ]);
  });

  it.each([
    ["virtio", "virtio"],
    ["intel", "vtd"],
  ] as const)("puts a %s IOMMU in front of every device", (iommu, kind) => {
    const vm = vmWith({ iommu });
    expect(vm.viommu).toMatchObject({ kind });
    const passed = vm.devices.filter((one) => one.host !== null);
    expect(passed.map(({ exemption }) => exemption)).toEqual([null, null, null]);
    expect(passed).toMatchObject(places);
    if (iommu === "intel") expect(vm.viommu!.cachingMode).toBe(true);
  });
});

describe("the arguments", () => {
  it("make an AMD IOMMU for QEMU, and are refused for libvirt, which knows none", () => {
    expect(qemu({ iommu: "amd" }).viommu).toMatchObject({ kind: "amd" });
    expect(() => libvirt({ iommu: "amd" })).toThrow(/no element for an AMD IOMMU/);
  });

  it("give nodes of unlike sizes their own CPUs", () => {
    const nodes = host.nodes.map((one, at) => ({ ...one, cpus: at === 0 ? [0, 2, 4] : [] }));
    const uneven: Machine = { ...host, nodes };
    const vm = read(emitVm(uneven, chosen, "qemu"));
    expect(vm.ignored).toEqual([]);
    expect(vm.machine.nodes.map(({ cpus }) => cpus)).toEqual([[0, 1, 2], []]);
    const domain = emitVm(uneven, chosen, "libvirt");
    expect(domain).toContain("<vcpupin vcpu='1' cpuset='0,2,4'/>");
  });

  it("are for Arm's board on an Arm host, where no device has a node", () => {
    const text = emitVm(arm, ["0000:01:00.0"], "qemu", { iommu: "virtio" });
    const vm = buildVm(readCommand(words(`qemu-system-aarch64 -nodefaults ${text}`), "x"), arm);
    expect(vm.ignored).toEqual([]);
    expect([vm.board, vm.viommu?.kind]).toEqual(["virt", "virtio"]);
    expect(vm.devices[0]!.exemption ?? vm.devices[1]!.exemption).not.toBe("no-iommu");
    expect(() => emitVm(arm, ["0000:01:00.0"], "qemu", { iommu: "intel" })).toThrow(/Arm has no/);
  });

  it.each<[string[], EmitOptions, RegExp]>([
    [[], {}, /no device is named/],
    [["0000:99:00.0"], {}, /no function 0000:99:00.0/],
    [["0000:20:00.0"], {}, /0000:20:00.0 is a bridge/],
    [chosen, { cpus: 3 }, /3 CPUs cannot be shared out evenly to 2 nodes/],
    [chosen, { memoryBytes: 3n << 20n }, /cannot be shared out evenly/],
    [chosen, { memoryBytes: 0n }, /cannot be shared out evenly/],
  ])("for %j with %o are refused", (names, options, message) => {
    expect(() => emitVm(host, names, "qemu", options)).toThrow(message);
  });

  it("for more devices than a root bus has numbers for are refused", () => {
    const one = host.functions.find(({ bus }) => bus === 0x81)!;
    const many = Array.from({ length: 40 }, (_, at) => ({ ...one, segment: at + 1 }));
    const names = many.map(({ segment }) => `${segment.toString(16).padStart(4, "0")}:81:00.0`);
    const large = { ...host, functions: [...host.functions, ...many] };
    expect(emitVm(large, names.slice(0, 31), "qemu")).toContain("port30");
    expect(() => emitVm(large, names, "qemu")).toThrow(/more than 31 devices/);
  });
});

describe("a domain", () => {
  itNeeds("virt-xml-validate", "is one by libvirt's schema, whatever its IOMMU", (validate) => {
    const folder = mkdtempSync(join(tmpdir(), "iommukit-domain-"));
    try {
      for (const iommu of emitIommus.filter((one) => one !== "amd")) {
        const path = join(folder, `${iommu}.xml`);
        writeFileSync(path, emitVm(host, chosen, "libvirt", { iommu }));
        const said = execFileSync(validate, [path, "domain"], { encoding: "utf8" });
        expect(said).toMatch(/validates/);
      }
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
