/** Writes a machine's virtio-iommus as a VIOT: IOMMU nodes first, then what is behind each. */
import type { Machine, RidRange, VirtioMmioIommu, VirtioPciIommu } from "../../topology/machine.ts";
import { cannotDescribe } from "../build-error.ts";
import { withRestAsRanges } from "../rest-ranges.ts";
import { headerValues, type TableIds, TableWriter } from "./table-writer.ts";
import { MmioEndpoint, PciRange, Viot, VirtioMmio, VirtioPci } from "./viot.ts";

/** Revision that all producers write (F6). */
const REVISION = 0;

/** VIOT of a machine. @throws StackError when it has no virtio-iommu */
export function buildViot(given: Machine, ids: TableIds): Uint8Array {
  const machine = withRestAsRanges("viot", given, ["virtio-pci", "virtio-mmio"]);
  const iommus = machine.iommus.filter(
    (iommu): iommu is VirtioPciIommu | VirtioMmioIommu =>
      iommu.kind === "virtio-pci" || iommu.kind === "virtio-mmio",
  );
  if (iommus.length === 0) {
    throw cannotDescribe(
      "viot",
      "the machine has no virtio-iommu",
      "VT-d is in dmar, AMD-Vi in ivrs, SMMU in iort",
    );
  }
  const writer = new TableWriter();
  const nodeOffset = Viot.layout.bytes;
  writer.put(Viot, { ...headerValues("VIOT", REVISION, ids), nodeCount: 0, nodeOffset });
  const offsets = iommus.map((iommu) => putIommu(writer, iommu));
  if (offsets.some((offset) => offset > 0xffff)) {
    throw cannotDescribe("viot", "IOMMU nodes must start below 64 KiB", "describe fewer IOMMUs");
  }
  let nodes = iommus.length;
  iommus.forEach((iommu, index) => {
    const outputNode = offsets[index]!;
    const merged = mergeSegments(iommu.translates);
    for (const range of merged) putRange(writer, range, outputNode);
    for (const { base, id, path } of iommu.endpoints) {
      if (base === 0n) {
        const message = `endpoint ${path ?? id} has no address, by which VIOT knows it`;
        throw cannotDescribe("viot", message, "give the start of its first memory resource");
      }
      const length = MmioEndpoint.layout.bytes;
      writer.put(MmioEndpoint, { type: 2, length, endpoint: id, base, outputNode });
    }
    nodes += merged.length + iommu.endpoints.length;
  });
  writer.patch(Viot, 0, "nodeCount", nodes);
  return writer.finish();
}

function putIommu(writer: TableWriter, iommu: VirtioPciIommu | VirtioMmioIommu): number {
  if (iommu.kind === "virtio-mmio") {
    const length = VirtioMmio.layout.bytes;
    return writer.put(VirtioMmio, { type: 4, length, base: iommu.registers.start });
  }
  const { segment, rid } = iommu;
  return writer.put(VirtioPci, { type: 3, length: VirtioPci.layout.bytes, segment, bdf: rid });
}

/** A range of one segment, or of several that follow each other. */
interface SegmentedRange {
  readonly range: RidRange;
  lastSegment: number;
}

/** Ranges that differ by segment alone become one node, whose ids stride by 65 536 (F3). */
function mergeSegments(ranges: readonly RidRange[]): SegmentedRange[] {
  const merged: SegmentedRange[] = [];
  for (const range of ranges) {
    const before = merged.at(-1);
    if (before !== undefined && follows(before, range)) before.lastSegment = range.segment;
    else merged.push({ range, lastSegment: range.segment });
  }
  return merged;
}

function follows(before: SegmentedRange, { segment, firstRid, lastRid, firstId }: RidRange) {
  const { range, lastSegment } = before;
  return (
    segment === lastSegment + 1 &&
    firstRid === range.firstRid &&
    lastRid === range.lastRid &&
    firstId === range.firstId + (segment - range.segment) * 0x1_0000
  );
}

function putRange(writer: TableWriter, merged: SegmentedRange, outputNode: number): void {
  const { lastSegment } = merged;
  const { segment, firstRid, lastRid, firstId } = merged.range;
  const lastId = firstId + (lastSegment - segment) * 0x1_0000 + (lastRid - firstRid);
  if (lastId > 0xffff_ffff) {
    throw cannotDescribe("viot", "endpoint IDs pass 32 bits", "start the range at a lower ID");
  }
  writer.put(PciRange, {
    type: 1,
    length: PciRange.layout.bytes,
    endpointStart: firstId,
    segmentStart: segment,
    segmentEnd: lastSegment,
    bdfStart: firstRid,
    bdfEnd: lastRid,
    outputNode,
  });
}
