/** UNMAP: V75–V88. */
import { describe, expect, it } from "vitest";
import { Rig, unmapBytes } from "./device-rig.suite.ts";
import { UnmapRequest } from "./protocol.ts";

const LAST = 2n ** 64n - 1n;

function attached(settings: ConstructorParameters<typeof Rig>[0] = {}): Rig {
  const rig = new Rig(settings);
  rig.attach(1, 8);
  return rig;
}

function refuses(rig: Rig, request: () => string, status: string): void {
  const before = rig.snapshot();
  expect(request()).toBe(status);
  expect(rig.snapshot()).toBe(before);
}

describe("UNMAP", () => {
  it("in an unknown domain is NOENT (V75)", () => {
    const rig = attached();
    refuses(rig, () => rig.unmap(2, 0n, 9n), "NOENT");
    refuses(rig, () => rig.unmap(0xffff_ffff, 0n, 9n), "NOENT");
  });

  it("in a bypass domain is INVAL (V76)", () => {
    const rig = new Rig();
    rig.attach(1, 8, 1);
    refuses(rig, () => rig.unmap(1, 0n, 9n), "INVAL");
  });

  it("that would cut a mapping is RANGE and removes nothing at all (V77)", () => {
    const rig = attached();
    for (const start of [0n, 10n, 20n, 30n]) rig.map(1, start, start + 9n);
    refuses(rig, () => rig.unmap(1, 5n, 39n), "RANGE");
    refuses(rig, () => rig.unmap(1, 0n, 35n), "RANGE");
    refuses(rig, () => rig.unmap(1, 12n, 15n), "RANGE");
    refuses(rig, () => rig.unmap(1, 9n, 9n), "RANGE");
  });

  it("removes what lies inside and is OK over gaps and nothing (V78)", () => {
    const rig = attached();
    for (const start of [10n, 30n, 50n]) rig.map(1, start, start + 9n);
    expect(rig.unmap(1, 0n, 44n)).toBe("OK");
    expect(rig.mappings()).toEqual(["1: 50-59 -> 50 3"]);
    expect(rig.unmap(1, 0n, 44n)).toBe("OK");
    expect(rig.unmap(1, 1000n, 2000n)).toBe("OK");
  });

  /** The seven examples of the specification, each from an empty domain. */
  it.each<[number, [bigint, bigint][], [bigint, bigint], string, string[]]>([
    [1, [], [0n, 4n], "OK", []],
    [2, [[0n, 9n]], [0n, 9n], "OK", []],
    [
      3,
      [
        [0n, 4n],
        [5n, 9n],
      ],
      [0n, 9n],
      "OK",
      [],
    ],
    [4, [[0n, 9n]], [0n, 4n], "RANGE", ["0-9"]],
    [
      5,
      [
        [0n, 4n],
        [5n, 9n],
      ],
      [0n, 4n],
      "OK",
      ["5-9"],
    ],
    [6, [[0n, 4n]], [0n, 9n], "OK", []],
    [
      7,
      [
        [0n, 4n],
        [10n, 14n],
      ],
      [0n, 14n],
      "OK",
      [],
    ],
  ])("example (%i) of the specification (V79)", (_, maps, [start, last], status, left) => {
    const rig = attached();
    for (const [from, to] of maps) expect(rig.map(1, from, to)).toBe("OK");
    expect(rig.unmap(1, start, last)).toBe(status);
    expect(rig.mappings().map((text) => text.split(" ")[1])).toEqual(left);
  });

  it("needs no alignment (V80)", () => {
    const rig = attached({ pageSizeMask: 0x1000n });
    rig.map(1, 0n, 0xfffn);
    refuses(rig, () => rig.unmap(1, 0x10n, 0xfffn), "RANGE");
    refuses(rig, () => rig.unmap(1, 0n, 0xffen), "RANGE");
    expect(rig.unmap(1, 0n, 0x1000n)).toBe("OK");
    expect(rig.mappings()).toEqual([]);
  });

  it("of the whole space removes everything, also what ends at its last address (V81)", () => {
    const rig = attached();
    rig.map(1, 0n, 9n);
    rig.map(1, LAST - 9n, LAST, 0n);
    rig.map(1, 2n ** 63n - 5n, 2n ** 63n + 5n, 0n);
    expect(rig.unmap(1, 0n, LAST)).toBe("OK");
    expect(rig.device.mappingCount).toBe(0);
    rig.map(1, 0n, LAST, 0n);
    expect(rig.unmap(1, 0n, LAST)).toBe("OK");
    expect(rig.unmap(1, 0n, LAST)).toBe("OK");
    expect(rig.mappings()).toEqual([]);
  });

  it("ignores its reserved field (V82)", () => {
    const rig = attached();
    rig.map(1, 0n, 9n);
    const request = unmapBytes(1, 0n, 9n);
    request.fill(0xff, 24, UnmapRequest.bytes);
    expect(rig.status(request)).toBe("OK");
    expect(rig.mappings()).toEqual([]);
  });

  it("of an inverted range is INVAL and removes nothing (V83)", () => {
    const rig = attached();
    rig.map(1, 0n, 9n);
    for (const [start, last] of [
      [5n, 4n],
      [9n, 0n],
      [LAST, 0n],
      [2n ** 32n, 2n ** 32n - 1n],
    ] as const)
      refuses(rig, () => rig.unmap(1, start, last), "INVAL");
  });

  it("of an inverted range is INVAL in an unknown domain too, as for MAP (V83)", () => {
    const rig = attached();
    refuses(rig, () => rig.unmap(2, 5n, 4n), "INVAL");
    refuses(rig, () => rig.map(2, 5n, 4n), "INVAL");
  });

  it("outside input_range is OK and removes nothing (V84)", () => {
    const rig = attached({ inputRange: { start: 0n, last: 0xffffn } });
    rig.map(1, 0n, 9n);
    refuses(rig, () => rig.unmap(1, 0x1_0000n, LAST), "OK");
    expect(rig.unmap(1, 0n, LAST)).toBe("OK");
    expect(rig.mappings()).toEqual([]);
  });

  it("takes mappings as they were made, as Linux relies on (V86)", () => {
    const rig = attached();
    rig.map(1, 0n, 0x1f_ffffn);
    refuses(rig, () => rig.unmap(1, 0n, 0xf_ffffn), "RANGE");
    expect(rig.unmap(1, 0n, 0x1f_ffffn)).toBe("OK");
  });

  it("leaves nothing behind that translates once it is answered (V87)", () => {
    const rig = attached();
    rig.attach(1, 16);
    rig.map(1, 0n, 9n);
    expect(rig.reach(16, 5n)).toBe(5n);
    rig.unmap(1, 0n, 9n);
    expect(rig.reach(8, 5n)).toBe(null);
    expect(rig.reach(16, 5n)).toBe(null);
  });
});

describe("invalidation", () => {
  /** A translation cache keyed by domain and endpoint, told by the device. */
  function watched(): { rig: Rig; heard: string[] } {
    const rig = attached();
    const heard: string[] = [];
    rig.device.addListener({
      unmapped: (domain, startPfn, startOffset, lastPfn, lastOffset) =>
        heard.push(`unmapped ${domain} ${startPfn}+${startOffset} ${lastPfn}+${lastOffset}`),
      endpointChanged: (endpoint) => heard.push(`endpoint ${endpoint}`),
      domainRemoved: (domain) => heard.push(`domain ${domain}`),
    });
    return { rig, heard };
  }

  it("is told of UNMAP before the answer, by the range asked for (V88)", () => {
    const { rig, heard } = watched();
    rig.map(1, 0x1000n, 0x1fffn);
    const before = rig.device.generation;
    rig.unmap(1, 0xfffn, 0x2fffn);
    expect(heard).toEqual(["unmapped 1 0+4095 2+4095"]);
    expect(rig.device.generation).not.toBe(before);
    rig.unmap(1, 0xfffn, 0x2fffn);
    expect(heard.length).toBe(1);
  });

  it("is told of DETACH, ATTACH elsewhere and the domain's end (V88)", () => {
    const { rig, heard } = watched();
    rig.attach(2, 8);
    expect(heard).toEqual(["endpoint 8", "domain 1", "endpoint 8"]);
    heard.length = 0;
    rig.attach(2, 16);
    rig.detach(2, 8);
    expect(heard).toEqual(["endpoint 16", "endpoint 8"]);
  });

  it("is told of a bypass change for every unattached endpoint, and of a reset (V88, V110)", () => {
    const { rig, heard } = watched();
    rig.device.writeConfig(36, Uint8Array.of(1));
    expect(heard).toEqual(["endpoint 16", "endpoint 24"]);
    rig.device.writeConfig(36, Uint8Array.of(1));
    expect(heard.length).toBe(2);
    heard.length = 0;
    rig.device.reset();
    expect(heard).toEqual(["endpoint 8", "domain 1"]);
  });

  it("is not told any more once the listener is gone", () => {
    const rig = attached();
    let heard = 0;
    const listener = {
      unmapped(): void {
        heard += 1;
      },
    };
    rig.device.addListener(listener);
    rig.map(1, 0n, 9n);
    rig.unmap(1, 0n, 9n);
    rig.device.removeListener(listener);
    rig.map(1, 0n, 9n);
    rig.unmap(1, 0n, 9n);
    expect(heard).toBe(1);
  });
});

/** tests/qtest/virtio-iommu-test.c, map_unmap; its ranges need a granule of 1 (V57). */
describe("QEMU's map_unmap test", () => {
  it("gives the statuses that the test expects", () => {
    const rig = new Rig({ endpoints: [{ id: 0 }] });
    expect(rig.attach(1, 0)).toBe("OK");
    expect(rig.map(0, 0n, 0xfffn, 0xa1000n)).toBe("NOENT");
    expect(rig.map(1, 0n, 0xfffn, 0xa1000n)).toBe("OK");
    expect(rig.map(1, 0x2000n, 0x2fffn, 0xb1000n)).toBe("OK");
    expect(rig.map(1, 0x2000n, 0x2fffn, 0xc1000n)).toBe("INVAL");
    expect(rig.map(1, 0x1000n, 0x1fffn, 0xc1000n)).toBe("OK");
    expect(rig.unmap(4, 0x10n, 0xfffn)).toBe("NOENT");
    expect(rig.unmap(1, 0x10n, 0xfffn)).toBe("RANGE");
    expect(rig.unmap(1, 0n, 0x1000n - 1n)).toBe("OK");
    expect(rig.unmap(1, 0n, 0x1000n - 1n)).toBe("OK");
    expect(rig.unmap(1, 0x1000n, 0x2fffn)).toBe("OK");
    expect(rig.map(1, 0n, 9n, 0xa1000n)).toBe("OK");
    expect(rig.unmap(1, 0n, 4n)).toBe("RANGE");
    expect(rig.map(1, 0n, 4n, 0xb1000n)).toBe("INVAL");
    expect(rig.unmap(1, 0n, 9n)).toBe("OK");
  });
});
