import { describe, expect, it } from "vitest";
import { addressOf } from "../units.ts";
import { ContextFlag, TraceEvent, TraceKind } from "./trace-event.ts";
import { TraceTextReader } from "./trace-text.ts";

interface Read {
  readonly events: TraceEvent[];
  readonly comms: string[];
  readonly devices: string[];
  readonly reader: TraceTextReader;
}

function read(text: string): Read {
  const events: TraceEvent[] = [];
  const reader = new TraceTextReader((event) => {
    events.push(Object.assign(new TraceEvent(), event));
  });
  reader.push(new TextEncoder().encode(text));
  reader.end();
  return {
    events,
    reader,
    comms: events.map((event) => reader.commName(event.comm)),
    devices: events.map((event) => reader.deviceName(event.device)),
  };
}

const MAP =
  "map: IOMMU: iova=0x00000000fffbe000 - 0x00000000fffc2000 paddr=0x0000000012f94000 size=16384";
const UNMAP =
  "unmap: IOMMU: iova=0x00000000fffbe000 - 0x00000000fffc2000 size=16384 unmapped_size=16384";

describe("trace text of tracefs", () => {
  it("gives the numbers of a map and an unmap", () => {
    const { events, comms } = read(
      `             fio-614     [000] .....    90.080026: ${MAP}\n` +
        `    kworker/0:1H-115     [001] d.h1.    90.080400: ${UNMAP}\n`,
    );
    const [map, unmap] = events;
    expect(map).toMatchObject({
      kind: TraceKind.map,
      line: 1,
      timeUs: 90_080_026,
      timeNs: 0,
      cpu: 0,
      pid: 614,
      context: 0,
      iovaPfn: 0xfffbe,
      physPfn: 0x12f94,
      pages: 4,
      pagesRest: 0,
    });
    expect(unmap).toMatchObject({
      kind: TraceKind.unmap,
      line: 2,
      cpu: 1,
      pid: 115,
      context: ContextFlag.irqsOff | ContextFlag.hardIrq,
      pages: 4,
      unmappedPages: 4,
    });
    expect(comms).toEqual(["fio", "kworker/0:1H"]);
  });

  it("reads each flag column", () => {
    const contextOf = (flags: string) =>
      read(`  fio-1  [000] ${flags} 1.000000: ${MAP}\n`).events[0]?.context;
    const { irqsOff, needResched, hardIrq, softIrq, nmi, bottomHalvesOff, unknown } = ContextFlag;
    expect(contextOf(".....")).toBe(0);
    expect(contextOf("d.H..")).toBe(irqsOff | hardIrq | softIrq);
    expect(contextOf("DNs1.")).toBe(irqsOff | bottomHalvesOff | needResched | softIrq);
    expect(contextOf("bBz2.")).toBe(bottomHalvesOff | needResched | nmi);
    expect(contextOf("..Zf3")).toBe(nmi | hardIrq);
    expect(contextOf("d.h1")).toBe(irqsOff | hardIrq);
    expect(contextOf("")).toBe(unknown);
  });

  it("reads a line with the thread group, known and unknown", () => {
    const { events, comms } = read(
      `            bash-20280   (  20280) [001] d..2.  3154.172845: ${MAP}\n` +
        `            bash-20262   (-------) [001] d..2.  3154.172846: ${UNMAP}\n`,
    );
    expect(events.map((event) => event.pid)).toEqual([20280, 20262]);
    expect(comms).toEqual(["bash", "bash"]);
  });

  it("reads names with blanks, brackets, dashes and colons", () => {
    const names = ["a b", "[x]", "<idle>", "k-1", "a [3] b", "x-9 [1]", "(sd-pam)", "a: b", ""];
    const { events, comms } = read(
      names.map((name) => `${name.padStart(16)}-77  [002] ..... 1.000000: ${MAP}\n`).join(""),
    );
    expect(comms).toEqual(names);
    expect(events.every((event) => event.pid === 77 && event.cpu === 2)).toBe(true);
  });

  it("reads lines behind the name of a file, as trace-cmd prints several", () => {
    const { comms } = read(
      `   trace-guest.dat:             fio-614   [000]    90.080026: ${MAP}\n` +
        `         trace.dat:    kworker/0:1H-115   [001]    90.080026: ${UNMAP}\n`,
    );
    expect(comms).toEqual(["fio", "kworker/0:1H"]);
  });

  it("reads names right when the column of the CPU changes between lines", () => {
    const { comms } = read(
      `  a-1 [000] ..... 1.000000: ${MAP}\n` +
        `  name [000]-2 [001] ..... 1.000000: ${UNMAP}\n` +
        `  a-1 [000] ..... 1.000000: ${MAP}\n`,
    );
    expect(comms).toEqual(["a", "name [000]", "a"]);
  });

  it("keeps 64-bit addresses exact", () => {
    const { events } = read(
      "  a-1 [000] ..... 1.000000: map: IOMMU: iova=0xfffffffffffff000 - 0x0000000000000000 " +
        "paddr=0xfedcba9876543210 size=4096\n" +
        "  a-1 [000] ..... 1.000000: unmap: IOMMU: iova=0x0000000000000000 - " +
        "0xffffffffffffffff size=18446744073709551615 unmapped_size=18446744073709551615\n",
    );
    const [map, unmap] = events;
    expect(addressOf(map!.iovaPfn, map!.iovaOffset)).toBe(0xffff_ffff_ffff_f000n);
    expect(addressOf(map!.physPfn, map!.physOffset)).toBe(0xfedc_ba98_7654_3210n);
    expect(addressOf(unmap!.unmappedPages, unmap!.unmappedRest)).toBe(2n ** 64n - 1n);
  });

  it("gives sizes that are no whole pages as they are", () => {
    const { events } = read(
      "  a-1 [000] ..... 1.000000: map: IOMMU: iova=0x0000000000001001 - 0x0000000000001011 " +
        "paddr=0x0000000000000000 size=16\n" +
        "  a-1 [000] ..... 1.000000: map: IOMMU: iova=0x0000000000001000 - 0x0000000000001000 " +
        "paddr=0x0000000000000000 size=0\n",
    );
    expect(events[0]).toMatchObject({ iovaPfn: 1, iovaOffset: 1, pages: 0, pagesRest: 16 });
    expect(events[1]).toMatchObject({ pages: 0, pagesRest: 0 });
  });

  it("reads the text of old kernels, which has no end of the range", () => {
    const { events } = read(
      "  a-1 [000] .... 1.000000: map: IOMMU: iova=0x0000000000001000 paddr=0x0000000000002000 " +
        "size=4096\n" +
        "  a-1 [000] .... 1.000001: unmap: IOMMU: iova=0x0000000000001000 size=4096 " +
        "unmapped_size=4096\n",
    );
    expect(events.map((event) => [event.iovaPfn, event.pages])).toEqual([
      [1, 1],
      [1, 1],
    ]);
  });

  it("reads devices and groups, and faults without a blank after the colon", () => {
    const { events, devices } = read(
      "  insmod-106 [000] ..... 4.5: add_device_to_group: IOMMU: groupID=3 device=0000:00:04.0\n" +
        "  insmod-106 [000] ..... 4.6: attach_device_to_domain: IOMMU: device=0000:00:04.0\n" +
        "  insmod-106 [000] ..... 4.7: remove_device_from_group: IOMMU: groupID=3 device=eth0\n" +
        "  a-1 [000] d.h.. 5.0: io_page_fault: IOMMU:nvme 0000:01:00.0 iova=0x00000000fffbe123 " +
        "flags=0x0001\n",
    );
    expect(events.map((event) => event.kind)).toEqual([
      TraceKind.addDevice,
      TraceKind.attach,
      TraceKind.removeDevice,
      TraceKind.fault,
    ]);
    expect(devices).toEqual(["0000:00:04.0", "0000:00:04.0", "eth0", "0000:01:00.0"]);
    expect(events[0]?.group).toBe(3);
    expect(events[0]?.timeUs).toBe(4_500_000);
    expect(events[3]).toMatchObject({ iovaPfn: 0xfffbe, iovaOffset: 0x123, flags: 1, pages: 0 });
  });

  it("reads a clock of nanoseconds exactly and one of ticks as ticks", () => {
    expect(read(`  a-1 [000] 12.000001999: ${MAP}\n`).events[0]).toMatchObject({
      timeUs: 12_000_001,
      timeNs: 999,
    });
    const { events, reader } = read(`  a-1 [000] d..2.    4: ${MAP}\n`);
    expect(events[0]?.timeUs).toBe(4);
    expect(reader.ticks).toBe(true);
  });
});

describe("trace-cmd report", () => {
  it("is read with its padded names, with and without flags", () => {
    const { events, reader } = read(
      "cpus=2\n" +
        `             fio-614   [000]    90.080026: map:                  ${MAP.slice(5)}\n` +
        `             fio-614   [001] d.h1.    90.080400123: unmap:                ${UNMAP.slice(7)}\n`,
    );
    expect(events.map((event) => event.kind)).toEqual([TraceKind.map, TraceKind.unmap]);
    expect(events.map((event) => event.context)).toEqual([
      ContextFlag.unknown,
      ContextFlag.irqsOff | ContextFlag.hardIrq,
    ]);
    expect(events[1]?.timeNs).toBe(123);
    expect(reader.cpus).toBe(2);
    expect(reader.notes.unreadable).toBe(0);
  });
});

describe("perf script", () => {
  it("is read with process, process and thread, and a sample period", () => {
    const { events, comms } = read(
      `             fio   614 [000]    90.080026: iommu:map: ${MAP.slice(5)}\n` +
        `     migration/0  18/20 [001]  3754.687764123:          1 iommu:unmap: ${UNMAP.slice(7)}\n`,
    );
    expect(events.map((event) => [event.kind, event.pid, event.cpu, event.timeNs])).toEqual([
      [TraceKind.map, 614, 0, 0],
      [TraceKind.unmap, 20, 1, 123],
    ]);
    expect(comms).toEqual(["fio", "migration/0"]);
  });

  it("passes over the call chains below its lines", () => {
    const { events, reader } = read(
      `fio   614 [000]    90.080026: iommu:map: ${MAP.slice(5)}\n` +
        "\tffffffff821e5ae3 iommu_map+0x53 ([kernel.kallsyms])\n" +
        "            7f7ea32b2477 main (/usr/bin/fio)\n\n",
    );
    expect(events).toHaveLength(1);
    expect(reader.notes.unreadable).toBe(0);
  });
});

describe("what a trace has lost", () => {
  it("is summed from the markers of trace_pipe, trace-cmd and perf", () => {
    const { reader } = read(
      "CPU:0 [LOST 180 EVENTS]\nCPU:1 [LOST EVENTS]\nCPU:1 [EVENTS DROPPED]\n" +
        "CPU:1 [7 EVENTS DROPPED]\n" +
        "perf 24815 [000]  3754.687734: PERF_RECORD_LOST lost 12\n",
    );
    expect(reader.notes.lostEvents).toBe(199);
    expect(reader.notes.lostMarkers).toBe(5);
    expect(reader.notes.lostLines).toEqual([1, 2, 3, 4, 5]);
    expect(reader.notes.unreadable).toBe(0);
  });

  it("is the difference of the two counts in the header", () => {
    const { reader } = read("# entries-in-buffer/entries-written: 9435/10000   #P:2\n");
    expect(reader.notes.lostEvents).toBe(565);
    expect(reader.cpus).toBe(2);
    expect(read("# entries-in-buffer/entries-written: 9/9   #P:2\n").reader.notes.lostMarkers).toBe(
      0,
    );
  });
});

describe("lines that are no event", () => {
  it("are counted by name when they are another event", () => {
    const { events, reader } = read(
      "  bash-1 [001] d..2.  1.0: sched_switch: prev_comm=bash ==> next_comm=fio\n" +
        "  bash-1 [001] d..2.  1.1: dma_map_phys: 0000:01:00.0 dir=TO_DEVICE dma_addr=fff size=4\n" +
        "  bash-1 [001] d..2.  1.2: sched_switch: prev_comm=bash\n" +
        "  bash-1 [001] d..2.  1.3: kfree <-do_exit\n" +
        "  bash-1 [001] d..2.  1.4: map: of somebody else\n",
    );
    expect(events).toEqual([]);
    expect(reader.unusedEvents()).toEqual([
      { name: "sched_switch", count: 2 },
      { name: "(function)", count: 1 },
      { name: "dma_map_phys", count: 1 },
      { name: "map", count: 1 },
    ]);
    expect(reader.notes.unreadable).toBe(0);
  });

  it("are told with their line when they are torn", () => {
    const line = `  fio-614  [000] ..... 90.080026: ${MAP}`;
    const torn = [
      line.slice(60),
      line.slice(0, 70),
      `  fio-614  [000] ..... 90.080026: ${MAP} extra`,
      line.replace("size=16384", "size=1638"),
      line.replace("size=16384", "size=99999999999999999999999"),
      line.replace("fffbe000", "fffbg000"),
      `  fio-614 [000] ..... 90.08  fio-614 [000] ..... 90.080026: ${MAP}`,
      "\0\0\0\0",
    ];
    const { events, reader } = read(`${[line, ...torn, line].join("\n")}\n`);
    expect(events.map((event) => event.line)).toEqual([1, 10]);
    expect(reader.notes.unreadableLines).toEqual([
      { line: 2, problem: "torn" },
      { line: 3, problem: "torn" },
      { line: 4, problem: "torn" },
      { line: 5, problem: "range and size disagree" },
      { line: 6, problem: "number too large" },
      { line: 7, problem: "torn" },
      { line: 8, problem: "torn" },
      { line: 9, problem: "torn" },
    ]);
  });

  it("are listed up to a bound and counted beyond", () => {
    const { reader } = read("rubbish\n".repeat(1000));
    expect(reader.notes.unreadable).toBe(1000);
    expect(reader.notes.unreadableLines).toHaveLength(100);
  });

  it("are not taken for an event when the recording was cut in its last number", () => {
    const head = "  fio-1 [000] ..... 1.000000: ";
    expect(read(head + MAP).events).toHaveLength(1);
    expect(read(head + UNMAP).events).toHaveLength(1);
    for (let cut = 1; cut < 40; cut += 1) {
      expect(read(head + MAP.slice(0, -cut)).events).toEqual([]);
      expect(read(head + UNMAP.slice(0, -cut)).events).toEqual([]);
      const { notes } = read(head + UNMAP.slice(0, -cut)).reader;
      expect(notes.unreadable).toBe(1);
    }
  });
});

describe("a recording as a whole", () => {
  it("is read alike with CR LF", () => {
    const text = `# tracer: nop\n#\n  a-1 [000] ..... 1.000000: ${MAP}\n\n  a-1 [000] ..... 1.5: ${UNMAP}\n`;
    const unix = read(text);
    const dos = read(text.replaceAll("\n", "\r\n"));
    expect(dos.events).toEqual(unix.events);
    expect(dos.events).toHaveLength(2);
    expect(dos.reader.notes).toEqual(unix.reader.notes);
  });

  it("counts the events whose time runs backwards", () => {
    const times = ["1.000002", "1.000001", "1.000001", "1.000001500", "1.000001400", "2.0"];
    const { reader } = read(times.map((time) => `  a-1 [000] ..... ${time}: ${MAP}\n`).join(""));
    expect(reader.notes.backwards).toBe(2);
    expect(reader.notes.backwardsLine).toBe(2);
  });

  it("may be empty or hold a header only", () => {
    expect(read("").reader.notes.lines).toBe(0);
    expect(read("# tracer: nop\n#\n").reader.notes).toMatchObject({ lines: 2, unreadable: 0 });
  });
});
