import { describe, expect, it } from "vitest";
import { barMappings, mappingFindings } from "./bar-mappings.ts";

const line = (start: string, end: string, at: string, path = "anon_inode:[vfio-device]") =>
  `${start}-${end} rw-s ${at} 00:0f 1065                     ${path}`;

describe("mappings of BARs in /proc/PID/maps", () => {
  it("are those of devices: region and offset out of the file's offset", () => {
    const maps = [
      "55d0c0000000-55d0c0010000 r--p 00000000 08:01 42  /usr/bin/qemu-system-x86_64",
      line("7f0000000000", "7f0040000000", "00000000"),
      line("7f1000000000", "7f1000200000", "20000001000"),
      line("7f2000000000", "7f2000010000", "10000000000", "/dev/vfio/devices/vfio0"),
      line("7f3000000000", "7f3000010000", "70000000000"), // configuration space
      line("7f4000000000", "7f4000000000", "0"),
      "7fff00000000-7fff00001000 rw-p 00000000 00:00 0  [stack]",
    ].join("\n");
    expect(barMappings(maps)).toEqual([
      { start: 0x7f00_0000_0000n, bytes: 1n << 30n, bar: 0, offset: 0n },
      { start: 0x7f10_0000_0000n, bytes: 2n << 20n, bar: 2, offset: 0x1000n },
      { start: 0x7f20_0000_0000n, bytes: 0x1_0000n, bar: 1, offset: 0n },
    ]);
  });

  const at = (start: bigint, bytes: bigint, offset = 0n) =>
    mappingFindings([{ start, bytes, bar: 0, offset }]).map(({ message }) => message);

  it.each([
    [0x7f00_0000_0000n, 1n << 30n, 0n, null],
    [0x7f00_0020_0000n, 1n << 30n, 0n, /pages of 2MiB instead of 1GiB/],
    [0x7f00_0000_1000n, 1n << 30n, 0n, /pages of 4KiB instead of 1GiB/],
    [0x7f00_0000_1000n, 4n << 20n, 0n, /pages of 4KiB instead of 2MiB/],
    // Behind a table of interrupts that is not mapped: address and BAR agree all the same.
    [0x7f00_0000_1000n, 4n << 20n, 0x1000n, null],
    [0x7f00_0000_0000n, 4n << 20n, 0x1000n, /4KiB instead of 2MiB/],
    [0x7f00_0000_1000n, 1n << 20n, 0n, null],
  ])("at %s of %s bytes from offset %s: %s", (start, bytes, offset, message) => {
    const found = at(start, bytes, offset);
    if (message === null) expect(found).toEqual([]);
    else expect(found).toEqual([expect.stringMatching(message)]);
  });

  it("of any text are read without harm, and not without end", () => {
    expect(barMappings("\0".repeat(100))).toEqual([]);
    expect(barMappings(`${"f".repeat(40)}-0 rw-s 0 0 0 x`)).toEqual([]);
    const many = `${line("1000", "2000", "0")}\n`.repeat(5000);
    expect(barMappings(many)).toHaveLength(4096);
  });
});
