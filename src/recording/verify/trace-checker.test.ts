import { describe, expect, it } from "vitest";
import { check, exampleText, unwaivedOf } from "./checking.suite.ts";
import { type ScheduleFacts, type ScheduleVerifier, TraceChecker } from "./trace-checker.ts";

const verify = (text: string, schedule: ScheduleVerifier | null = null) =>
  check(new TraceChecker("trace", schedule), text);

const hex = (value: number) => value.toString(16).padStart(16, "0");

/** A line of a trace: pages from a frame on. */
function line(
  kind: "map" | "unmap",
  pfn: number,
  pages: number,
  { pid = 614, cpu = 0, removed = pages } = {},
): string {
  const range = `iova=0x${hex(pfn * 4096)} - 0x${hex((pfn + pages) * 4096)}`;
  const rest = kind === "map" ? `paddr=0x${hex(0x12f94000)} ` : "";
  const tail = kind === "unmap" ? ` unmapped_size=${removed * 4096}` : "";
  return `  fio-${pid} [00${cpu}] ..... 90.080026: ${kind}: IOMMU: ${range} ${rest}size=${pages * 4096}${tail}\n`;
}

describe("the rules of a trace", () => {
  it("hold for recordings of kernels, one row for each allocation", () => {
    for (const [name, allocations] of [
      ["boot-strict-1cpu.txt.gz", 4613],
      ["boot-lazy-2cpu.txt.gz", 4631],
      ["nvme-randwrite.txt.gz", 17_050],
    ] as const) {
      const { tally, inferredBefore } = verify(exampleText(name));
      expect(tally).toMatchObject({ compared: allocations, matched: allocations, unwaived: 0 });
      expect(inferredBefore).toBe(0);
    }
  });

  it("hold for a recording that starts in the middle, its older mappings inferred", () => {
    const lines = exampleText("nvme-randwrite.txt.gz").split("\n");
    const { tally, inferredBefore } = verify(lines.slice(20_000).join("\n"));
    expect(tally.unwaived).toBe(0);
    expect(inferredBefore).toBeGreaterThan(0);
  });

  it("are broken by an address that is not aligned to its size", () => {
    const text = line("map", 0xff001, 4) + line("unmap", 0xff001, 4);
    expect(unwaivedOf(verify(text))).toEqual([
      "1: : an address aligned to 0x4000, for a size of 4 pages, 0xff001000-0xff004fff",
    ]);
  });

  it("are broken by the first page and by the MSI window", () => {
    const text =
      line("map", 0, 1) +
      line("map", 0xfee00, 1) +
      line("map", 0xfef00, 1) +
      line("map", 0xfe000, 0x1000);
    const divergences = unwaivedOf(verify(text));
    expect(divergences).toHaveLength(3);
    expect(divergences[0]).toContain("above the first page");
    expect(divergences[1]).toContain("outside the MSI window of x86, 0xfee00000-0xfeefffff");
    expect(divergences[2]).toContain("4: ");
  });

  it("are broken by unmaps that do not fit what is mapped", () => {
    const text =
      line("map", 0xff000, 4) +
      line("unmap", 0xff000, 2) +
      line("unmap", 0xff002, 2) +
      line("unmap", 0xff002, 2) +
      line("map", 0xff100, 2) +
      line("unmap", 0xff100, 2, { removed: 1 });
    const divergences = unwaivedOf(verify(text));
    expect(divergences.map((text) => text.slice(0, 30))).toEqual([
      "2: : an unmap of whole allocat",
      "4: : an unmap of something tha",
      "6: : an unmap of everything th",
      "6: : an unmap of whole allocat",
    ]);
  });

  it("are not judged by what does not fit after events were lost", () => {
    const { tally } = verify(
      `CPU:0 [LOST 12 EVENTS]\n${line("map", 0xff000, 1)}${line("map", 0xff000, 1)}`,
    );
    expect(tally.unwaived).toBe(0);
    expect(tally.waivers).toEqual([{ name: "trace-lost-events", rows: 1 }]);
  });

  it("waive an overlap when both mappings were unmapped as two domains would, else not", () => {
    const maps = line("map", 0xff000, 1) + line("map", 0xff000, 1);
    const both = verify(maps + line("unmap", 0xff000, 1) + line("unmap", 0xff000, 1));
    expect(both.tally.unwaived).toBe(0);
    expect(both.tally.waivers).toEqual([{ name: "trace-names-no-domain", rows: 1 }]);
    const once = verify(
      maps + line("unmap", 0xff000, 1) + line("unmap", 0xff000, 1, { removed: 0 }),
    );
    expect(unwaivedOf(once)[0]).toContain("shares no page with a live mapping");
  });

  it("do not hold for a task that maps a whole guest, which chooses its addresses", () => {
    const text =
      line("map", 0, 160, { pid: 7 }) +
      line("map", 0x100, 0x80000, { pid: 7 }) +
      line("unmap", 0, 160, { pid: 7 }) +
      line("unmap", 0x100, 0x80000, { pid: 7 }) +
      line("map", 0xff001, 2, { pid: 8 }) +
      line("unmap", 0xff001, 2, { pid: 8 });
    const outcome = verify(text);
    expect(outcome.tally.waivers).toEqual([{ name: "trace-user-chosen-iova", rows: 2 }]);
    expect(unwaivedOf(outcome)).toHaveLength(1);
  });

  it("count violations past those that are kept", () => {
    const text = Array.from(
      { length: 12_000 },
      (_, index) =>
        line("map", index * 16 + 1, 2, { pid: index % 3 }) +
        line("unmap", index * 16 + 1, 2, { pid: index % 3 }),
    ).join("");
    const { tally } = verify(text);
    expect(tally.unwaived).toBe(12_000);
    expect(tally.divergences).toHaveLength(10_000);
  });
});

describe("remarks on a trace", () => {
  it("tell of sizes that are left out, with the first line", () => {
    const bad = line("map", 0xff000, 1)
      .replace("size=4096", "size=4095")
      .replace("ff001000", "ff000fff");
    const { diagnostics, tally } = verify(line("map", 0xff000, 0) + bad + bad);
    expect(diagnostics.map(({ code, line: at }) => [code, at])).toEqual([
      ["recording/bad-size", 1],
      ["recording/bad-size", 2],
    ]);
    expect(tally.compared).toBe(0);
  });

  it("tell of torn lines, lost events, time that runs backwards and events that are not used", () => {
    const { diagnostics, lostEvents, lostMarkers } = verify(
      "torn\n" +
        line("map", 0xff000, 1) +
        line("unmap", 0xff000, 1).replace("90.08", "89.08") +
        "CPU:1 [LOST 5 EVENTS]\n  bash-1 [001] d..2.  1.0: sched_switch: x\n",
    );
    expect(diagnostics.map(({ code, severity, line: at }) => [code, severity, at])).toEqual([
      ["recording/bad-line", "error", 1],
      ["recording/lost-events", "warning", 4],
      ["recording/time-backwards", "warning", 3],
      ["recording/unused-events", "note", undefined],
    ]);
    expect([lostEvents, lostMarkers]).toEqual([5, 1]);
  });

  it("tell of I/O page faults that were recorded", () => {
    const fault =
      "  a-1 [000] d.h.. 95.0: io_page_fault: IOMMU:nvme 0000:01:00.0 iova=0x00000000fffbe123 flags=0x0001\n";
    const { diagnostics } = verify(line("map", 0xff000, 1) + fault + fault);
    expect(diagnostics).toMatchObject([
      { code: "recording/io-page-faults", line: 2, message: expect.stringContaining("2 ") },
    ]);
  });

  it("tell of a recording without events", () => {
    const { diagnostics, tally } = verify("# tracer: nop\n");
    expect(diagnostics.map(({ code }) => code)).toEqual(["recording/no-events"]);
    expect(tally.compared).toBe(0);
  });
});

describe("the schedule of a trace", () => {
  const attach =
    "  insmod-1 [000] ..... 1.0: attach_device_to_domain: IOMMU: device=0000:00:03.0\n";
  const maps = line("map", 0xfffff, 1) + line("unmap", 0xfffff, 1) + line("map", 0xffff0, 16);

  function factsOf(text: string): ScheduleFacts | null {
    let seen: ScheduleFacts | null = null;
    verify(text, (_operations, facts) => {
      seen = facts;
      return null;
    });
    return seen;
  }

  it("is asked for with what is known of the recording", () => {
    expect(factsOf(attach + maps)).toEqual({ fromBoot: true, cpus: 0, lostEvents: false });
    expect(factsOf(maps)).toMatchObject({ fromBoot: false });
    expect(factsOf(maps + attach)).toMatchObject({ fromBoot: false });
    expect(factsOf(attach + line("unmap", 5, 1) + maps)).toMatchObject({ fromBoot: false });
    const header = "# entries-in-buffer/entries-written: 3/9   #P:4\n";
    expect(factsOf(header + attach + maps)).toEqual({ fromBoot: false, cpus: 4, lostEvents: true });
    expect(factsOf(attach)).toBeNull();
  });

  it("gives the rows in place of the rules, which only add what is broken", () => {
    const outcome = verify(attach + maps + line("map", 0, 1), (operations) => {
      expect(operations.allocations).toBe(3);
      return {
        compared: 3,
        matched: 2,
        moves: 1,
        flushesInferred: 2,
        divergences: [{ line: 4, expected: "0xa", got: "0xb", waivedBy: null }],
        remarks: ["hello"],
      };
    });
    expect(outcome).toMatchObject({ moves: 1, flushesInferred: 2 });
    expect(outcome.tally).toMatchObject({ compared: 4, matched: 2 });
    expect(unwaivedOf(outcome)).toHaveLength(2);
    expect(outcome.diagnostics.map(({ message }) => message)).toEqual(["hello"]);
  });

  it("is not asked for when mappings overlap, since several domains have several allocators", () => {
    expect(factsOf(attach + maps + line("map", 0xffff0, 16))).toBeNull();
    const { diagnostics } = verify(maps + line("map", 0xffff0, 16), () => null);
    expect(diagnostics[0]?.message).toContain("several domains");
  });

  it("is said to be missing when the recording does not allow it", () => {
    const { diagnostics } = verify(maps, () => null);
    expect(diagnostics.map(({ code }) => code)).toEqual(["verify/schedule"]);
  });
});
