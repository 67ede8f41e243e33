import { expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { MachineFiles } from "./machine-files.ts";
import type { FileHold } from "./ports.ts";

/** Descriptors whose number is their file's. */
function make() {
  const log: string[] = [];
  const status = (fd: number) =>
    fd < 0
      ? -Errno.EBADF
      : ({
          kind: "regular",
          device: "1",
          inode: fd,
          bytes: 4096,
          blockBytes: 512,
          mode: 0,
          userId: 0,
        } as const);
  const files = {
    hold: (fd: number) => (fd === 99 ? Errno.EACCES : { pieces: [], release: () => {} }),
  };
  const machine = new MachineFiles({ status }, files, (line) => log.push(line), 16_384);
  const hold = (device: string) => {
    const seen = machine.of(device);
    return (fd: number) => seen.hold(fd, 0, 4096, "shared");
  };
  return { log, iommu: hold("iommu"), disk: hold("disk") };
}

it("devices of one machine hold its files in any order (U173)", () => {
  const { iommu, disk, log } = make();
  for (const fd of [1, 2, 1]) expect(iommu(fd)).toBeTypeOf("object");
  for (const fd of [2, 3, 1]) expect(disk(fd)).toBeTypeOf("object");
  expect(iommu(4)).toBeTypeOf("object");
  expect(log).toEqual([]);
});

it("a device that comes with another machine's memory is refused, and says with whose (U173)", () => {
  const { iommu, disk, log } = make();
  iommu(1);
  expect(disk(7)).toBe(Errno.EPERM);
  expect(log).toEqual([expect.stringContaining("disk: its memory is not that of iommu")]);
  expect(disk(1)).toBeTypeOf("object");
  expect(disk(7)).toBeTypeOf("object");
});

it("memory that was given back binds nobody: the next machine may come (U173)", () => {
  const { iommu, disk } = make();
  const holds = [iommu(1), iommu(1)] as FileHold[];
  holds[0]!.release();
  expect(disk(7)).toBe(Errno.EPERM);
  holds[1]!.release();
  expect(disk(7)).toBeTypeOf("object");
  expect(iommu(1)).toBe(Errno.EPERM);
});

it("what is refused for another reason is not held (U173)", () => {
  const { iommu, disk } = make();
  expect(iommu(99)).toBe(Errno.EACCES);
  expect(iommu(-1)).toBe(Errno.EBADF);
  expect(disk(7)).toBeTypeOf("object");
});

it("no device is given more than the machine has, until it gives some back", () => {
  const { disk, log } = make();
  const holds = Array.from({ length: 4 }, () => disk(1)) as FileHold[];
  for (let round = 0; round < 3; round += 1) expect(disk(1)).toBe(Errno.ENOMEM);
  expect(log).toEqual([expect.stringContaining("more than the machine has")]);
  holds[2]!.release();
  expect(disk(1)).toBeTypeOf("object");
});
