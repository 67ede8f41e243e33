import { describe, expect, it } from "vitest";
import { QEMU_QUIRKS } from "../../virtio/iommu/quirks.ts";
import { check, exampleText, unwaivedOf } from "./checking.suite.ts";
import { QemuChecker } from "./qemu-checker.ts";

const recorded = exampleText("qemu-virtio-iommu-strict.log.gz");
const recordedLines = recorded.split("\n");
const verify = (text: string) => check(new QemuChecker("log"), text);

/** A machine's start, one endpoint in one domain. */
const start = `virtio_iommu_get_features device supports features=0x10179000077
virtio_iommu_init_iommu_mr init virtio-iommu-memory-region-3-24
virtio_iommu_get_config page_size_mask=0xfffffffffffff000 input range start=0x0 input range end=0x7fffffffff domain range start=0 domain range end=4294967295 probe_size=0x200 bypass=0x1
virtio_iommu_fill_resv_property dev= 24, type=1 start=0xfee00000 end=0xfeefffff
virtio_iommu_attach domain=3 endpoint=24
`;
const startLines = start.split("\n").length - 1;

const map = (from: string, to: string, phys: string, flags = 3, domain = 3) =>
  `virtio_iommu_map domain=${domain} virt_start=${from} virt_end=${to} phys_start=${phys} flags=${flags}\n`;
const unmap = (from: string, to: string, domain = 3) =>
  `virtio_iommu_unmap domain=${domain} virt_start=${from} virt_end=${to}\n`;
const done = (from: string, to: string, domain = 3) =>
  `virtio_iommu_unmap_done domain=${domain} virt_start=${from} virt_end=${to}\n`;
const ask = (address: string, flag = 1, endpoint = 24) =>
  `virtio_iommu_translate mr=virtio-iommu-memory-region-3-24 rid=${endpoint} addr=${address} flag=${flag}\n`;
const answer = (address: string, phys: string, endpoint = 24) =>
  `virtio_iommu_translate_out ${address} -> ${phys} for sid=${endpoint}\n`;

/** Divergences of lines that follow the start, numbered from 1. */
function divergencesAfterStart(text: string): string[] {
  return unwaivedOf(verify(start + text)).map((divergence) =>
    divergence.replace(/^\d+/, (line) => String(Number(line) - startLines)),
  );
}

describe("a recorded log of QEMU", () => {
  it("is followed request by request and translation by translation", () => {
    const { tally, inferredBefore } = verify(recorded);
    expect(
      unwaivedOf({ tally, inferredBefore, lostEvents: 0, lostMarkers: 0, diagnostics: [] }),
    ).toEqual([]);
    // 8 attach, 5966 map, 4607 unmap, 5960 unmap_done, 66413 translate, 9 get_config, 8 reserved.
    expect(tally.compared).toBe(8 + 5966 + 4607 + 5960 + 66_413 + 9 + 8);
    expect(inferredBefore).toBe(0);
  });

  it("has translations after a status of 0, which only QEMU's departure explains", () => {
    const { tally } = verify(recorded);
    expect(tally.waivers).toEqual([{ name: "qemu-reset-keeps-domains", rows: 18 }]);
    const quirks = QEMU_QUIRKS.filter((name) => name !== "qemu-reset-keeps-domains");
    const strict = check(new QemuChecker("log", { quirks }), recorded);
    expect(strict.tally.unwaived).toBe(18);
  });

  it("is verified from wherever it starts, as far as it tells", () => {
    for (const from of [80, 3000, 50_001, 99_998, 141_000]) {
      const { tally, inferredBefore } = verify(recordedLines.slice(from).join("\n"));
      expect(tally.unwaived).toBe(0);
      expect(inferredBefore).toBeGreaterThan(0);
      expect(tally.matched + tally.waived).toBeGreaterThan((recordedLines.length - from) / 4);
    }
  });

  it("diverges at the one line that was changed", () => {
    const at = recordedLines.findIndex((line, index) => index > 9000 && line.includes("_out"));
    const changed = [...recordedLines];
    changed[at] = recordedLines[at]!.replace(/-> 0x(.)/, "-> 0x1$1");
    const divergences = unwaivedOf(verify(changed.join("\n")));
    expect(divergences).toHaveLength(1);
    expect(divergences[0]).toMatch(new RegExp(`^${at + 1}: endpoint=24 accesses`));
  });
});

describe("translations of a log", () => {
  it("lead where the mapping leads, to the byte", () => {
    expect(
      divergencesAfterStart(
        map("0x10000", "0x1ffff", "0x70000") +
          ask("0x1fffe") +
          answer("0x1fffe", "0x7fffe") +
          ask("0x10001") +
          answer("0x10001", "0x70002"),
      ),
    ).toEqual(["5: endpoint=24 accesses 0x10001: 0x70002, 0x70001"]);
  });

  it("need the right to read or write", () => {
    const writeOnly = map("0x10000", "0x10fff", "0x70000", 2);
    expect(
      divergencesAfterStart(writeOnly + ask("0x10000", 2) + answer("0x10000", "0x70000")),
    ).toEqual([]);
    expect(
      divergencesAfterStart(writeOnly + ask("0x10000", 1) + answer("0x10000", "0x70000")),
    ).toEqual(["3: endpoint=24 accesses 0x10000: 0x70000, no translation: a fault"]);
  });

  it("are absent for interrupts, faults and endpoints that bypass", () => {
    expect(
      divergencesAfterStart(
        ask("0xfee00000", 2) +
          ask("0x5000", 1) +
          "virtio_iommu_report_fault FAULT reason=2 flags=256 endpoint=24 address =0x5000\n" +
          ask("0x1000", 1, 40),
      ),
    ).toEqual([]);
    expect(divergencesAfterStart(map("0x5000", "0x5fff", "0x0") + ask("0x5000"))).toEqual([
      "2: endpoint=24 accesses 0x5000: no translation, 0x0",
    ]);
    expect(
      divergencesAfterStart(
        map("0x5000", "0x5fff", "0x0") +
          ask("0x5000") +
          "virtio_iommu_report_fault FAULT reason=2 flags=256 endpoint=24 address =0x5000\n",
      ),
    ).toEqual(["3: endpoint=24 accesses 0x5000: a fault, 0x0"]);
  });

  it("may stand apart from their questions, several at a time", () => {
    expect(
      divergencesAfterStart(
        map("0x10000", "0x1ffff", "0x70000") +
          ask("0x10000") +
          ask("0x11000") +
          ask("0x20000") +
          map("0x20000", "0x20fff", "0x90000") +
          answer("0x11000", "0x71000") +
          answer("0x10000", "0x70000") +
          answer("0x20000", "0x90000"),
      ),
    ).toEqual([]);
  });

  it("that an unmap of another thread overtook are waived", () => {
    const { tally } = verify(
      `${start}${map("0x5000", "0x5fff", "0x0")}${ask("0x5000")}${unmap("0x5000", "0x5fff")}${done("0x5000", "0x5fff")}`,
    );
    expect(tally.unwaived).toBe(0);
    expect(tally.waivers).toEqual([{ name: "log-other-thread", rows: 1 }]);
  });
});

describe("requests of a log", () => {
  it("must be accepted", () => {
    expect(
      divergencesAfterStart(
        map("0x10000", "0x1ffff", "0x70000") +
          map("0x1f000", "0x20fff", "0x0") +
          map("0x0", "0xfff", "0x0", 3, 9) +
          "virtio_iommu_detach domain=4 endpoint=24\n",
      ),
    ).toEqual([
      "2: MAP domain=3 0x1f000-0x20fff to 0x0 flags=3: accepted, INVAL",
      "3: MAP domain=9 0x0-0xfff to 0x0 flags=3: accepted, NOENT",
      "4: DETACH domain=4 endpoint=24: accepted, INVAL",
    ]);
  });

  it("that only QEMU accepts are waived under the name of its departure", () => {
    const { tally } = verify(
      `${start}${map("0x10001", "0x10fff", "0x1")}${ask("0x10002")}${answer("0x10002", "0x2")}`,
    );
    expect(tally.unwaived).toBe(0);
    expect(tally.waivers).toEqual([{ name: "qemu-map-unaligned", rows: 1 }]);
  });

  it("must remove the mappings that QEMU's removed", () => {
    const two = map("0x10000", "0x10fff", "0x0") + map("0x11000", "0x12fff", "0x0");
    const all = unmap("0x0", "0xfffff");
    expect(
      divergencesAfterStart(two + all + done("0x11000", "0x12fff") + done("0x10000", "0x10fff")),
    ).toEqual([]);
    expect(divergencesAfterStart(two + all + done("0x10000", "0x10fff"))).toEqual([
      "3: UNMAP domain=3: not removed, removes 0x11000-0x12fff",
    ]);
    expect(
      divergencesAfterStart(
        two + unmap("0x10000", "0x10fff") + done("0x10000", "0x10fff") + done("0x11000", "0x12fff"),
      ),
    ).toEqual(["5: UNMAP domain=3: removes 0x11000-0x12fff, no such mapping"]);
  });

  it("are forgotten over a reset of the machine", () => {
    expect(
      divergencesAfterStart(
        map("0x10000", "0x10fff", "0x0") +
          "virtio_iommu_system_reset system reset!\nvirtio_iommu_attach domain=3 endpoint=24\n" +
          map("0x10000", "0x10fff", "0x5000") +
          ask("0x10000") +
          answer("0x10000", "0x5000"),
      ),
    ).toEqual([]);
  });
});

describe("config space and PROBE of a log", () => {
  const config = start.split("\n")[2]!;

  it("must read as logged, the bypass field as it was written", () => {
    expect(
      divergencesAfterStart(
        `virtio_iommu_set_config bypass=0x0\n${config.replace("bypass=0x1", "bypass=0x0")}\n${config}\n`,
      ),
    ).toEqual(["3: : bypass 1, bypass 0"]);
  });

  it("start anew when another device is described", () => {
    const other = config.replace("7fffffffff", "ffffffffffff");
    const { tally } = verify(
      `${start}${map("0x10000", "0x10fff", "0x0")}${other}\nvirtio_iommu_attach domain=3 endpoint=24\n${map("0x10000", "0x10fff", "0x0")}`,
    );
    expect(tally.unwaived).toBe(0);
  });

  it("must name the same reserved regions", () => {
    const region =
      "virtio_iommu_fill_resv_property dev= 24, type=0 start=0x8000000 end=0x80fffff\n";
    const inTime = start.replace("virtio_iommu_attach", `${region}virtio_iommu_attach`);
    expect(unwaivedOf(verify(inTime))).toEqual([]);
    expect(unwaivedOf(verify(start + region))).toEqual([
      `${startLines + 1}: PROBE endpoint=24: region 0x8000000-0x80fffff, 1 other region`,
    ]);
  });

  it("must be allowed by the specification", () => {
    expect(() => verify(start.replace("0xfffffffffffff000", "0x0"))).toThrow(/does not allow/);
  });
});
