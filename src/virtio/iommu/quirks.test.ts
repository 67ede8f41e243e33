import { readdirSync, readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { viewOf } from "../../wire/layout.ts";
import { type IommuConfig, X86_MSI_REGION } from "./device-config.ts";
import { Rig } from "./device-rig.suite.ts";
import { Config, FEATURES_ALL, featureSet } from "./protocol.ts";
import {
  QEMU_QUIRKS,
  QUIRK_NAMES,
  QUIRKS,
  type QuirkName,
  quirkNames,
  quirkSet,
} from "./quirks.ts";

const LAST = 2n ** 64n - 1n;
const directory = new URL("vectors/", import.meta.url);

interface Row {
  readonly req: string;
  readonly tail: number;
  readonly used_len: number;
  readonly status: number | null;
  readonly buf: string | null;
}

/** The recorded device of a file, with its requests. */
function recordingOf(file: string): { settings: Partial<IommuConfig>; acked: number; rows: Row[] } {
  const text = gunzipSync(readFileSync(new URL(file, directory))).toString();
  const [head, ...rows] = text
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  const bytes = Uint8Array.from(Buffer.from(head.config, "hex"));
  const config = Config.decode(viewOf(bytes));
  const reserved = [X86_MSI_REGION];
  return {
    settings: {
      pageSizeMask: config.pageSizeMask,
      inputRange: { start: config.inputStart, last: config.inputLast },
      domainRange: { first: config.domainFirst, last: config.domainLast },
      probeSize: config.probeSize,
      bypass: config.bypass === 1,
      features: Number(BigInt(head.device_features) & 0xff_ffffn),
      endpoints: head.endpoints.map((id: string) => ({ id: Number(id), reserved })),
      ownEndpoint: { id: 0x20, reserved },
    },
    acked: Number(BigInt(head.acked) & 0xff_ffffn),
    rows,
  };
}

/** Plays a recording: rows that are answered otherwise, and how often each quirk changed one. */
function play(file: string, quirks: readonly QuirkName[]) {
  const { settings, acked, rows } = recordingOf(file);
  const rig = new Rig({ ...settings, quirks }, acked);
  const fired = new Map<QuirkName, number>();
  let wrong = 0;
  for (const { req, tail, used_len, status, buf } of rows) {
    const { used, bytes } = rig.send(Uint8Array.from(Buffer.from(req, "hex")), tail);
    const isRight =
      used === used_len &&
      (used === 0 ? status === null : bytes[used - 4] === status) &&
      (buf === null || Buffer.from(bytes.subarray(0, used)).toString("hex") === buf);
    if (!isRight) wrong += 1;
    for (const name of rig.device.firedQuirks) fired.set(name, (fired.get(name) ?? 0) + 1);
  }
  return { wrong, fired, rows: rows.length };
}

const files = readdirSync(directory).filter((name) => name.endsWith(".gz"));

describe("a device with the quirks of QEMU", () => {
  it.each(files)("answers every request of %s as QEMU did", (file) => {
    const { wrong, rows } = play(file, QEMU_QUIRKS);
    expect(wrong).toBe(0);
    expect(rows).toBe(2000);
  });

  it("needs each quirk that fires: without it, answers differ from the recorded ones", () => {
    const fired = new Set<QuirkName>();
    for (const file of files) {
      for (const name of play(file, QEMU_QUIRKS).fired.keys()) fired.add(name);
      expect(play(file, []).wrong).toBeGreaterThan(300);
    }
    expect(fired.size).toBe(15);
    for (const name of fired) {
      const without = QEMU_QUIRKS.filter((other) => other !== name);
      expect(
        files.some((file) => play(file, without).wrong > 0),
        name,
      ).toBe(true);
    }
  });
});

describe("the table of quirks", () => {
  it("has a clause and a statement in one line for each", () => {
    for (const name of QUIRK_NAMES) {
      expect(QUIRKS[name].clause.length).toBeGreaterThan(20);
      expect(QUIRKS[name].does).toMatch(/^[a-z][^\n]{10,100}$/);
    }
  });

  it("turns names into sets and back", () => {
    expect(quirkNames(quirkSet(QUIRK_NAMES))).toEqual(QUIRK_NAMES);
    expect(quirkSet([])).toBe(0);
    expect(quirkNames(quirkSet(["qemu-map-unaligned"]))).toEqual(["qemu-map-unaligned"]);
  });
});

describe("each quirk on its own", () => {
  const region = [{ start: 0x8000n, last: 0x8fffn, kind: "reserved" } as const];
  const endpoints = [{ id: 8 }, { id: 16 }, { id: 24, reserved: region }];
  /** Quirk, what comes before, the request, its status without and with the quirk. */
  const cases: [QuirkName, (rig: Rig) => void, (rig: Rig) => string, string, string][] = [
    ["qemu-unknown-type-unsupp", () => {}, (rig) => type6(rig), "used 0", "UNSUPP"],
    ["qemu-attach-reserved-ignored", () => {}, (rig) => rig.attach(2, 8, 0, 5), "INVAL", "OK"],
    ["qemu-attach-domain-range-ignored", () => {}, (rig) => rig.attach(100, 8), "RANGE", "OK"],
    [
      "qemu-attach-reserved-region-ignored",
      (rig) => [rig.attach(2, 8), rig.map(2, 0x8000n, 0x8fffn)],
      (rig) => rig.attach(2, 24),
      "UNSUPP",
      "OK",
    ],
    ["qemu-iommu-is-endpoint", () => {}, (rig) => rig.attach(2, 32), "NOENT", "OK"],
    ["qemu-endpoint-id-cut", () => {}, (rig) => rig.attach(2, 0x1_0010), "NOENT", "OK"],
    ["qemu-endpoint-id-cut", () => {}, (rig) => rig.probe(0x7_0008).status, "NOENT", "OK"],
    ["qemu-iommu-is-endpoint", () => {}, (rig) => rig.probe(32).status, "NOENT", "OK"],
    ["qemu-iommu-is-endpoint", () => {}, (rig) => rig.detach(2, 32), "NOENT", "INVAL"],
    [
      "qemu-reattach-drops-mappings",
      (rig) => [rig.attach(2, 8), rig.map(2, 0n, 0xfffn)],
      (rig) => rig.attach(2, 8),
      "OK",
      "OK",
    ],
    [
      "qemu-reattach-drops-mappings",
      (rig) => rig.attach(2, 8),
      (rig) => rig.attach(2, 8, 1),
      "INVAL",
      "OK",
    ],
    [
      "qemu-failed-attach-detaches",
      (rig) => [rig.attach(2, 8), rig.attach(3, 16, 1)],
      (rig) => rig.attach(3, 8),
      "INVAL",
      "INVAL",
    ],
    ["qemu-detach-noent-lazy-endpoint", () => {}, (rig) => rig.detach(2, 8), "INVAL", "NOENT"],
    [
      "qemu-detach-noent-lazy-endpoint",
      (rig) => [rig.attach(2, 8), rig.detach(2, 8)],
      (rig) => rig.detach(2, 8),
      "INVAL",
      "NOENT",
    ],
    ["qemu-map-one-byte", (rig) => rig.attach(2, 8), (rig) => rig.map(2, 5n, 5n), "INVAL", "RANGE"],
    [
      "qemu-map-inverted",
      (rig) => rig.attach(2, 8),
      (rig) => rig.map(2, 0x2000n, 0xfffn),
      "INVAL",
      "OK",
    ],
    ["qemu-map-unaligned", (rig) => rig.attach(2, 8), (rig) => rig.map(2, 1n, 9n), "RANGE", "OK"],
    [
      "qemu-map-outside-input-range",
      (rig) => rig.attach(2, 8),
      (rig) => rig.map(2, 0x1_0000_0000n, 0x1_0000_0fffn),
      "RANGE",
      "OK",
    ],
    [
      "qemu-map-reserved-region",
      (rig) => rig.attach(2, 24),
      (rig) => rig.map(2, 0x8000n, 0x8fffn),
      "RANGE",
      "OK",
    ],
    [
      "qemu-map-phys-overflow",
      (rig) => rig.attach(2, 8),
      (rig) => rig.map(2, 0n, 0xffffn, LAST - 0xfffn),
      "RANGE",
      "OK",
    ],
    [
      "qemu-unmap-inverted",
      (rig) => [rig.attach(2, 8), rig.map(2, 0n, 0x3fffn)],
      (rig) => rig.unmap(2, 0x2000n, 0x1fffn),
      "INVAL",
      "OK",
    ],
    [
      "qemu-unmap-not-atomic",
      (rig) => [
        rig.attach(2, 8),
        rig.map(2, 0x1000n, 0x1fffn),
        rig.map(2, 0n, 0xfffn),
        rig.map(2, 0x2000n, 0x3fffn),
      ],
      (rig) => rig.unmap(2, 0n, 0x2fffn),
      "RANGE",
      "RANGE",
    ],
  ];
  const settings: Partial<IommuConfig> = {
    endpoints,
    ownEndpoint: { id: 32 },
    pageSizeMask: 0x1000n,
    inputRange: { start: 0n, last: 0xffff_ffffn },
    domainRange: { first: 0, last: 99 },
  };

  it.each(cases)(
    "%s changes its answer or the state, and is reported",
    (name, prepare, ask, plain, quirky) => {
      const without = new Rig(settings);
      const withQuirk = new Rig({ ...settings, quirks: [name] });
      prepare(without);
      prepare(withQuirk);
      expect(withQuirk.snapshot()).toBe(without.snapshot());
      expect(ask(without)).toContain(plain);
      expect(without.device.firedQuirks).toEqual([]);
      expect(ask(withQuirk)).toBe(quirky);
      expect(withQuirk.device.firedQuirks).toEqual([name]);
      if (plain === quirky) expect(withQuirk.snapshot()).not.toBe(without.snapshot());
    },
  );

  it("qemu-attach-bypass-not-negotiated and qemu-map-mmio-not-negotiated honour flags anyway", () => {
    const features = FEATURES_ALL & ~featureSet("BYPASS_CONFIG", "MMIO");
    const quirks = ["qemu-attach-bypass-not-negotiated", "qemu-map-mmio-not-negotiated"] as const;
    const without = new Rig(settings, features);
    const rig = new Rig({ ...settings, quirks }, features);
    expect(without.attach(2, 8, 1)).toBe("INVAL");
    expect(rig.attach(2, 8, 1)).toBe("OK");
    expect(rig.device.firedQuirks).toEqual(["qemu-attach-bypass-not-negotiated"]);
    rig.attach(3, 16);
    without.attach(3, 16);
    expect(without.map(3, 0n, 0xfffn, 0n, 5)).toBe("INVAL");
    expect(rig.map(3, 0n, 0xfffn, 0n, 5)).toBe("OK");
    expect(rig.device.firedQuirks).toEqual(["qemu-map-mmio-not-negotiated"]);
  });

  it("qemu-map-unmap-not-negotiated handles both anyway", () => {
    const features = FEATURES_ALL & ~featureSet("MAP_UNMAP");
    const without = new Rig(settings, features);
    const rig = new Rig({ ...settings, quirks: ["qemu-map-unmap-not-negotiated"] }, features);
    without.attach(2, 8);
    rig.attach(2, 8);
    expect(without.map(2, 0n, 0xfffn)).toContain("used 0");
    expect(without.unmap(2, 0n, 0xfffn)).toContain("used 0");
    expect(rig.map(2, 0n, 0xfffn)).toBe("OK");
    expect(rig.unmap(2, 0n, 0xfffn)).toBe("OK");
    expect(rig.device.firedQuirks).toEqual(["qemu-map-unmap-not-negotiated"]);
  });

  it("qemu-endpoint-id-cut makes one more endpoint of each ID, and none of what is unknown", () => {
    const rig = new Rig({ ...settings, quirks: ["qemu-endpoint-id-cut"] });
    expect(rig.attach(2, 0x1_0008)).toBe("OK");
    expect(rig.device.domainOf(8)).toBe(null);
    expect(rig.attach(3, 8)).toBe("OK");
    expect(rig.detach(2, 8)).toBe("INVAL");
    expect(rig.detach(2, 0x1_0008)).toBe("OK");
    expect(rig.device.domainOf(8)).toBe(3);
    expect(rig.attach(2, 0x1_0009)).toBe("NOENT");
    // The function of the IOMMU is an endpoint by another quirk.
    expect(rig.attach(2, 0x1_0020)).toBe("NOENT");
  });

  it("qemu-reset-keeps-domains keeps them over a device reset, not over a system reset", () => {
    const rig = new Rig({ ...settings, quirks: ["qemu-reset-keeps-domains"] });
    rig.attach(2, 8);
    rig.map(2, 0n, 0xfffn);
    rig.device.reset();
    expect(rig.mappings().length).toBe(1);
    rig.device.systemReset();
    expect(rig.device.domainIds).toEqual([]);
  });

  it("an inverted range that is stored is in the way and translates nothing", () => {
    const rig = new Rig({ ...settings, quirks: ["qemu-map-inverted", "qemu-unmap-not-atomic"] });
    rig.attach(2, 8);
    rig.map(2, 0x3000n, 0x1fffn);
    expect(rig.map(2, 0x1000n, 0x3fffn)).toBe("INVAL");
    expect(rig.reach(8, 0x2000n)).toBe(null);
    expect(rig.unmap(2, 0n, 0xffffn)).toBe("OK");
    expect(rig.map(2, 0x1000n, 0x3fffn)).toBe("INVAL");
  });
});

function type6(rig: Rig): string {
  return rig.status(Uint8Array.of(6, 0, 0, 0, 0, 0, 0, 0));
}
