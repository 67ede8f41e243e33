import { describe, expect, it } from "vitest";
import { addressOf } from "../units.ts";
import { QemuEvent, QemuKind } from "./qemu-event.ts";
import { QemuLogReader } from "./qemu-log.ts";

function read(text: string): { events: QemuEvent[]; reader: QemuLogReader } {
  const events: QemuEvent[] = [];
  const reader = new QemuLogReader((event) => {
    events.push(Object.assign(new QemuEvent(), event));
  });
  reader.push(new TextEncoder().encode(text));
  reader.end();
  return { events, reader };
}

/** One line of each event that is read, as QEMU 11.1 prints it. */
const excerpt = `virtio_iommu_get_features device supports features=0x10179000077
virtio_iommu_freeze_granule granule set to 0x1000
virtio_iommu_init_iommu_mr init virtio-iommu-memory-region-3-24
virtio_iommu_system_reset system reset!
virtio_iommu_device_reset_exit reset!
virtio_iommu_device_status driver status = 15
virtio_iommu_get_config page_size_mask=0xfffffffffffff000 input range start=0x0 input range end=0x7fffffffff domain range start=0 domain range end=4294967295 probe_size=0x200 bypass=0x1
virtio_iommu_fill_resv_property dev= 24, type=1 start=0xfee00000 end=0xfeefffff
virtio_iommu_attach domain=3 endpoint=24
virtio_iommu_map domain=3 virt_start=0xfffff000 virt_end=0xffffffff phys_start=0x57ff000 flags=3
virtio_iommu_translate mr=virtio-iommu-memory-region-3-24 rid=24 addr=0xfffff040 flag=1
virtio_iommu_translate_out 0xfffff040 -> 0x57ff040 for sid=24
virtio_iommu_unmap domain=3 virt_start=0xfffff000 virt_end=0xffffffff
virtio_iommu_unmap_done domain=3 virt_start=0xfffff000 virt_end=0xffffffff
virtio_iommu_detach domain=3 endpoint=24
virtio_iommu_report_fault FAULT reason=2 flags=257 endpoint=24 address =0xfee00fff
virtio_iommu_set_config bypass=0x0
`;

describe("QEMU's log", () => {
  it("is read line by line into its events", () => {
    const { events, reader } = read(excerpt);
    expect(events.map((event) => event.kind)).toEqual([
      QemuKind.features,
      QemuKind.granule,
      QemuKind.region,
      QemuKind.systemReset,
      QemuKind.deviceReset,
      QemuKind.status,
      QemuKind.getConfig,
      QemuKind.reserved,
      QemuKind.attach,
      QemuKind.map,
      QemuKind.translate,
      QemuKind.translateOut,
      QemuKind.unmap,
      QemuKind.unmapDone,
      QemuKind.detach,
      QemuKind.fault,
      QemuKind.setConfig,
    ]);
    expect(events[6]).toMatchObject({
      lastPfn: 0x7ffffff,
      lastOffset: 0xfff,
      domainFirst: 0,
      domainLast: 0xffff_ffff,
      probeSize: 512,
      flags: 1,
    });
    expect(addressOf(events[6]!.maskPfn, events[6]!.maskOffset)).toBe(0xffff_ffff_ffff_f000n);
    expect(events[7]).toMatchObject({
      endpoint: 24,
      flags: 1,
      startPfn: 0xfee00,
      lastPfn: 0xfeeff,
    });
    expect(events[9]).toMatchObject({
      line: 10,
      timeUs: -1,
      domain: 3,
      startPfn: 0xfffff,
      lastPfn: 0xfffff,
      lastOffset: 0xfff,
      physPfn: 0x57ff,
      flags: 3,
    });
    expect(events[10]).toMatchObject({ endpoint: 24, startPfn: 0xfffff, startOffset: 0x40 });
    expect(events[11]).toMatchObject({ endpoint: 24, physPfn: 0x57ff, physOffset: 0x40 });
    expect(events[15]).toMatchObject({ reason: 2, flags: 257, endpoint: 24 });
    expect(reader.notes.unreadable).toBe(0);
  });

  it("is read alike with the time stamps of the log back end and with CR LF", () => {
    const plain = read(excerpt).events;
    const stamped = excerpt.replaceAll(/^/gm, "1234@1700000000.123456:").replace(/1234@[^v]*$/, "");
    const { events, reader } = read(stamped);
    expect(events.map((event) => ({ ...event, timeUs: -1 }))).toEqual(plain);
    expect(events.every((event) => event.timeUs === 1_700_000_000_123_456)).toBe(true);
    expect(reader.notes.backwards).toBe(0);
    expect(read(excerpt.replaceAll("\n", "\r\n")).events).toEqual(plain);
  });

  it("counts time that runs backwards", () => {
    const { reader } = read(
      "1@5.000002:virtio_iommu_system_reset system reset!\n" +
        "1@5.000001:virtio_iommu_system_reset system reset!\n",
    );
    expect(reader.notes).toMatchObject({ backwards: 1, backwardsLine: 2 });
  });

  it("takes identifiers printed as negative numbers for the unsigned ones they are", () => {
    const { events } = read("virtio_iommu_attach domain=-1 endpoint=24\n");
    expect(events[0]?.domain).toBe(0xffff_ffff);
  });

  it("counts other trace events by name and reports other lines", () => {
    const { events, reader } = read(
      "virtio_iommu_get_domain Alloc domain=1\nvfio_region_read  (0000:01:00.0)\n" +
        "virtio_iommu_get_domain Alloc domain=2\nqemu-system-x86_64: warning: something\n" +
        "(qemu) \n",
    );
    expect(events).toEqual([]);
    expect(reader.unusedEvents()).toEqual([
      { name: "virtio_iommu_get_domain", count: 2 },
      { name: "vfio_region_read", count: 1 },
    ]);
    expect(reader.notes.unreadableLines).toEqual([
      { line: 4, problem: "not an event" },
      { line: 5, problem: "not an event" },
    ]);
  });

  it("reports torn lines, and a last line that was cut", () => {
    const { events, reader } = read(
      "virtio_iommu_map domain=3 virt_start=0xfff\n" +
        "virtio_iommu_attach domain=3 endpoint=24virtio_iommu_attach domain=4 endpoint=32\n" +
        "virtio_iommu_attach domain=4294967296 endpoint=24\n" +
        "virtio_iommu_unmap domain=3 virt_start=0xfffff0000000000000000 virt_end=0xffffffff\n" +
        "virtio_iommu_attach domain=3 endpoint=2",
    );
    expect(events).toEqual([]);
    expect(reader.notes.unreadableLines.map(({ line, problem }) => `${line} ${problem}`)).toEqual([
      "1 torn",
      "2 torn",
      "3 torn",
      "4 torn",
      "5 torn",
    ]);
  });
});
