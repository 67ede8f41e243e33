/** The command line of QEMU, word by word. */
import { describe, expect, it } from "vitest";
import { exampleMachine } from "../machine/live-machine.suite.ts";
import { qemuArguments } from "./command.ts";
import { shellCommand, shellWord } from "./shell.ts";

const files = {
  socketOf: (name: string) => `/run/${name}.sock`,
  viot: "/run/a,b/viot.aml",
  console: null,
};

/** The value behind an option. */
const valuesOf = (words: readonly string[], option: string) =>
  words.flatMap((word, at) => (word === option ? [words[at + 1]!] : []));

describe("the arguments of QEMU", () => {
  it("give it memory that is shared and as large as -m", () => {
    const words = qemuArguments(exampleMachine(), files);
    expect(valuesOf(words, "-m")).toEqual(["1024M"]);
    expect(valuesOf(words, "-machine")).toEqual(["q35,memory-backend=ram"]);
    expect(valuesOf(words, "-object")).toEqual(["memory-backend-memfd,id=ram,size=1024M,share=on"]);
  });

  it("give each NUMA node a backend of its own, on its node of the host", () => {
    const half = 2 ** 29;
    const nodes = [
      { bytes: half, cpus: [0, 2], hostNode: 1 },
      { bytes: half, cpus: [1], hostNode: null },
    ];
    const words = qemuArguments({ ...exampleMachine(), cpus: 3, nodes }, files);
    expect(valuesOf(words, "-machine")).toEqual(["q35"]);
    expect(valuesOf(words, "-object")).toEqual([
      "memory-backend-memfd,id=ram0,size=512M,share=on,host-nodes=1,policy=bind",
      "memory-backend-memfd,id=ram1,size=512M,share=on",
    ]);
    expect(valuesOf(words, "-numa")).toEqual([
      "node,memdev=ram0,cpus=0,cpus=2",
      "node,memdev=ram1,cpus=1",
    ]);
  });

  it("give devices as JSON, the port before what is behind it, and the VIOT", () => {
    const words = qemuArguments(exampleMachine(), files);
    const [port, ...devices] = valuesOf(words, "-device");
    expect(port).toBe("pcie-root-port,id=port0,bus=pcie.0,addr=0x6,chassis=1,slot=1");
    expect(devices.map((one) => JSON.parse(one))).toEqual([
      {
        driver: "vfio-user-pci",
        id: "iommu0",
        bus: "pcie.0",
        addr: "0x3",
        rombar: 0,
        socket: { type: "unix", path: "/run/iommu0.sock" },
      },
      {
        driver: "vfio-user-pci",
        id: "blk0",
        bus: "pcie.0",
        addr: "0x4",
        rombar: 0,
        socket: { type: "unix", path: "/run/blk0.sock" },
      },
      {
        driver: "vfio-user-pci",
        id: "nvme0",
        bus: "port0",
        addr: "0x0",
        rombar: 0,
        socket: { type: "unix", path: "/run/nvme0.sock" },
      },
    ]);
    expect(valuesOf(words, "-acpitable")).toEqual(["file=/run/a,,b/viot.aml"]);
  });

  it("put the console on the terminal, or into a file", () => {
    expect(valuesOf(qemuArguments(exampleMachine(), files), "-serial")).toEqual(["mon:stdio"]);
    const words = qemuArguments(exampleMachine(), { ...files, console: "/c" });
    expect(valuesOf(words, "-serial")).toEqual(["file:/c"]);
    expect(valuesOf(words, "-monitor")).toEqual(["none"]);
  });

  it("boot a kernel, or the disk that is named", () => {
    const { qemu, ...rest } = exampleMachine();
    const kernel = { ...qemu, kernel: "/k", initrd: "/i", append: "quiet", extra: ["-no-reboot"] };
    const words = qemuArguments({ ...rest, qemu: kernel }, files);
    expect(words.slice(-7)).toEqual([
      "-kernel",
      "/k",
      "-initrd",
      "/i",
      "-append",
      "quiet",
      "-no-reboot",
    ]);
    const booted = qemuArguments({ ...rest, qemu: { ...qemu, boot: "blk0" } }, files);
    const disks = valuesOf(booted, "-device")
      .slice(1)
      .map((one) => JSON.parse(one));
    expect(disks.map(({ bootindex }) => bootindex)).toEqual([undefined, 0, undefined]);
  });
});

describe("words for a shell", () => {
  it("are quoted where a shell would change them", () => {
    expect(shellWord("a=b,c")).toBe("a=b,c");
    expect(shellWord(`it's {"a"}`)).toBe(`'it'\\''s {"a"}'`);
    expect(shellWord("")).toBe("''");
    expect(shellCommand(["qemu", "-m", "1G", "-S", "-name", "my vm"])).toBe(
      "qemu \\\n  -m 1G \\\n  -S \\\n  -name 'my vm'",
    );
  });
});
