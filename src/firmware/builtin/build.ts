/** Writes the config space of a machine's virtio-iommu with its topology built in: a proposal. */
import type { Machine, VirtioMmioIommu, VirtioPciIommu } from "../../topology/machine.ts";
import { Config } from "../../virtio/iommu/protocol.ts";
import type { Encodable, Fields } from "../../wire/layout.ts";
import { cannotDescribe } from "../build-error.ts";
import { withRestAsRanges } from "../rest-ranges.ts";
import {
  type Dialect,
  dialects,
  HeaderV1,
  HeaderV2,
  HeaderV3,
  STRUCTURES_MAX,
  TOPOLOGY_AT,
} from "./formats.ts";

const AS = "builtin";
/** Of the arrays, all structures have the longest one's size. */
const STRIDE = 16;

type Values = Record<string, number | bigint>;

/** The config space up to the end of the list. @throws StackError `firmware/cannot-describe` */
export function buildBuiltin(machine: Machine, dialect: Dialect): Uint8Array {
  const format = dialects[dialect];
  const structures = structuresOf(
    onlyIommu(withRestAsRanges(AS, machine, ["virtio-pci", "virtio-mmio"])),
    dialect,
  );
  const bytes = new Uint8Array(format.listAt + STRIDE * structures.length);
  const view = new DataView(bytes.buffer);
  Config.encode(
    {
      pageSizeMask: 0xffff_ffff_ffff_f000n,
      inputStart: 0n,
      inputLast: 0xffff_ffff_ffff_ffffn,
      domainFirst: 0,
      domainLast: 0xffff_ffff,
      probeSize: 512,
      bypass: 0,
    },
    view,
  );
  const { length: count } = structures;
  const offset = format.listAt;
  if (dialect === "v1") HeaderV1.encode({ offset }, view, TOPOLOGY_AT);
  if (dialect === "v2") HeaderV2.encode({ offset, count, stride: STRIDE }, view, TOPOLOGY_AT);
  if (dialect === "v3") HeaderV3.encode({ count, offset }, view, TOPOLOGY_AT);
  for (const [index, values] of structures.entries()) {
    const at = offset + STRIDE * index;
    const layout = "address" in values ? format.mmio : format.pci;
    const type = "address" in values ? format.mmioType : format.pciType;
    const next = index + 1 < count ? at + STRIDE : 0;
    // What a dialect has no field for is left out.
    const all: Values = { ...values, type, next, length: STRIDE };
    const known = Object.fromEntries(Object.keys(layout.fields).map((name) => [name, all[name]!]));
    layout.encode(known as unknown as Encodable<Fields>, view, at);
  }
  return bytes;
}

function onlyIommu({ iommus }: Machine): VirtioPciIommu | VirtioMmioIommu {
  const own = iommus.filter((one) => one.kind === "virtio-pci" || one.kind === "virtio-mmio");
  if (own.length === 1) return own[0]!;
  const message = `a config space belongs to one virtio-iommu, the machine has ${own.length}`;
  throw cannotDescribe(AS, message, "describe it with viot or dtb");
}

function structuresOf(
  { translates, endpoints }: VirtioPciIommu | VirtioMmioIommu,
  dialect: Dialect,
): Values[] {
  const structures: Values[] = [
    ...translates.map(
      ({ segment, firstRid, lastRid, firstId }): Values => ({
        endpoint: firstId,
        segment,
        first: firstRid,
        last: lastRid,
      }),
    ),
    ...endpoints.map(({ base, id }): Values => ({ endpoint: id, address: base })),
  ];
  const listBytes = STRIDE * structures.length;
  if (structures.length > STRUCTURES_MAX || (dialect !== "v2" && listBytes > 0xff00)) {
    throw cannotDescribe(AS, `${structures.length} structures do not fit`, "use wider ranges");
  }
  for (const values of structures) {
    if (values.address === 0n) {
      throw cannotDescribe(AS, "an endpoint has no address", "give its first memory resource");
    }
    // The RFC's reader takes two bytes of every field (F32).
    const isWide = Number(values.endpoint) > 0xffff || Number(values.address ?? 0n) > 0xffff;
    if (dialect === "v1" && isWide) {
      const message = "the RFC's guest reads 16 bits of ids and addresses";
      throw cannotDescribe(AS, message, "start ids below 65536, or write builtin-v3");
    }
  }
  return structures;
}
