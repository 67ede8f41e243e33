import { describe, expect, it } from "vitest";
import { emitVm } from "./emit.ts";
import { vmOfDomain } from "./libvirt.ts";
import { readCommand } from "./qemu-command.ts";
import { buildVm } from "./qemu-vm.ts";
import { splitWords } from "./qemu-words.ts";
import { realHost } from "./real-hosts.suite.ts";
import { readHost } from "./sysfs.ts";

const host = readHost(realHost("q35-2node-intel-iommu")).machine;
const chosen = ["0000:81:00.0", "0000:21:00.0", "0000:82:00.0"];
const places = [
  { host: "0000:81:00.0", bdf: "0000:41:00.0" },
  { host: "0000:21:00.0", bdf: "0000:21:00.0" },
  { host: "0000:82:00.0", bdf: "0000:42:00.0" },
];
const words = (text: string) => splitWords(text, "emitted");
const read = (text: string) =>
  buildVm(readCommand(words(`qemu -nodefaults ${text}`), "emitted"), host);

describe("the arguments that give a VM its host's topology", () => {
  it("put each device on a guest node whose memory is bound to the device's node", () => {
    const vm = read(emitVm(host, chosen, "qemu"));
    expect(vm.ignored).toEqual([]);
    expect(vm.devices).toMatchObject(places);
    expect(vm.devices.map(({ index }) => vm.machine.functions[index]!.node)).toEqual([1, 0, 1]);
    expect(vm.nodes.map(({ hostNodes }) => hostNodes)).toEqual([[0], [1]]);
    expect(vm.machine.nodes.map(({ distances }) => distances)).toEqual(
      host.nodes.map(({ distances }) => distances),
    );
  });

  it("say the same to libvirt", () => {
    const text = `<domain><os><type machine='q35'/></os>${emitVm(host, chosen, "libvirt")}</domain>`;
    const vm = vmOfDomain(text, "emitted", host);
    expect(vm.ignored).toEqual([]);
    expect(vm.devices).toMatchObject(places);
    expect(vm.nodes.map(({ hostNodes }) => hostNodes)).toEqual([[0], [1]]);
  });

  it.each([
    [[], /no device is named/],
    [["0000:99:00.0"], /no function 0000:99:00.0/],
  ])("%j is refused", (names, message) => {
    expect(() => emitVm(host, names, "qemu")).toThrow(message);
  });
});
