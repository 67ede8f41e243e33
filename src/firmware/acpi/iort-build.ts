/**
 * Writes a machine's SMMUs as an IORT: the ITS that interrupts go to, the SMMUs, then root complexes
 * and devices whose ids lead to them. Ids that no SMMU translates lead to the ITS (F44). A machine
 * without SMMU has root complexes and ITS alone, beside which a VIOT counts (F42).
 */
import type { FirmwareRegion, Machine, SmmuIommu } from "../../topology/machine.ts";
import { cannotDescribe } from "../build-error.ts";
import { withRestAsRanges } from "../rest-ranges.ts";
import {
  IdMapping,
  Iort,
  ItsGroup,
  NamedComponent,
  Rmr,
  RmrDescriptor,
  RootComplex,
  SmmuInterrupt,
  SmmuV2,
  SmmuV3,
  SmmuV3Placement,
} from "./iort.ts";
import { domainOf } from "./srat-build.ts";
import { headerValues, type TableIds, TableWriter } from "./table-writer.ts";

/** Issue E.d, from which on reserved memory ranges are read (F41). */
const REVISION = 5;
const RID_LAST = 0xffff;
const NO_ADDRESS_LIMIT = 64;
/** The length of a node has 16 bits: some 3270 mappings of 20 bytes, less what else it has. */
const MAPPINGS_MAX = 3200;
/** Issue E.e, from which on a flag says whether an SMMU has a mapping for its own interrupts. */
const SMMU_V3_REVISION = 5;
/**
 * Behind the only mapping. Before E.e an SMMU without GSIVs had its own mapping at this index, which
 * Linux skips for devices: at 0, their ids would not reach the ITS.
 */
const NO_MAPPING = 1;
/** Cache coherent, by a coherent path and with coherent attributes. */
const COHERENT = { cacheCoherent: 1, allocationHints: 0, memoryFlags: 3 };

/** A line of an ID mapping table. */
interface Mapping {
  readonly input: number;
  readonly count: number;
  readonly output: number;
  readonly reference: number;
  readonly isSingle?: boolean;
}

/** IORT of a machine. @throws StackError when it has neither SMMU nor host bridge */
export function buildIort(machine: Machine, ids: TableIds): Uint8Array {
  const builder = new IortBuilder(withRestAsRanges("iort", machine, ["smmuv3", "smmuv2"]));
  return builder.build(ids);
}

class IortBuilder {
  readonly #machine: Machine;
  readonly #writer = new TableWriter();
  /** Offsets of SMMU nodes. */
  readonly #offsets = new Map<SmmuIommu, number>();
  #nodes = 0;
  #its = 0;

  constructor(machine: Machine) {
    this.#machine = machine;
  }

  build(ids: TableIds): Uint8Array {
    const smmus = this.#machine.iommus.filter(
      (iommu): iommu is SmmuIommu => iommu.kind === "smmuv3" || iommu.kind === "smmuv2",
    );
    const isX86 =
      this.#machine.architecture?.startsWith("x86") === true ||
      this.#machine.iommus.some(({ kind }) => kind === "vtd" || kind === "amd");
    if (smmus.length === 0 && isX86) {
      const message = "the machine has no SMMU, and is an x86 one";
      throw cannotDescribe("iort", message, "VT-d is in dmar, AMD-Vi in ivrs");
    }
    const segments = this.#segments(smmus);
    if (smmus.length === 0 && segments.length === 0) {
      throw cannotDescribe(
        "iort",
        "the machine has neither SMMU nor host bridge",
        "VT-d is in dmar",
      );
    }
    const nodeOffset = Iort.layout.bytes;
    this.#writer.put(Iort, { ...headerValues("IORT", REVISION, ids), nodeCount: 0, nodeOffset });
    this.#putIts();
    for (const smmu of smmus) this.#putSmmu(smmu);
    for (const segment of segments) this.#putRootComplex(segment, smmus);
    for (const smmu of smmus) this.#putComponents(smmu);
    for (const region of this.#machine.firmwareRegions) {
      if (region.source === "rmr") this.#putRegion(region, smmus);
    }
    this.#writer.patch(Iort, 0, "nodeCount", this.#nodes);
    return this.#writer.finish();
  }

  #segments(smmus: readonly SmmuIommu[]): number[] {
    const all = [
      ...this.#machine.hostBridges.map((bridge) => bridge.segment),
      ...smmus.flatMap((smmu) => smmu.translates.map((range) => range.segment)),
    ];
    return [...new Set(all)].sort((a, b) => a - b);
  }

  /** Fields that all nodes have; lengths and mappings are patched when the node is complete. */
  #head(type: number, revision: number) {
    const identifier = this.#nodes;
    this.#nodes += 1;
    return { type, length: 0, revision, identifier, mappingCount: 0, mappingOffset: 0 };
  }

  #finishNode(at: number, mappings: readonly Mapping[]): void {
    const writer = this.#writer;
    if (mappings.length > MAPPINGS_MAX) {
      const message = `a node would have ${mappings.length} mappings, and holds ${MAPPINGS_MAX}`;
      throw cannotDescribe("iort", message, "join ranges of functions, or use more segments");
    }
    if (mappings.length > 0) writer.patch(ItsGroup, at, "mappingOffset", writer.length - at);
    writer.patch(ItsGroup, at, "mappingCount", mappings.length);
    for (const { input, count, output, reference, isSingle } of mappings) {
      writer.put(IdMapping, {
        inputBase: input,
        idCount: count - 1,
        outputBase: output,
        outputReference: reference,
        flags: isSingle === true ? 1 : 0,
      });
    }
    writer.patch(ItsGroup, at, "length", writer.length - at);
  }

  #putIts(): void {
    this.#its = this.#writer.put(ItsGroup, { ...this.#head(0, 1), itsCount: 1 });
    this.#writer.putBytes(new Uint8Array(4));
    this.#finishNode(this.#its, []);
  }

  #putSmmu(smmu: SmmuIommu): void {
    const toIts = { input: 0, count: RID_LAST + 1, output: 0, reference: this.#its };
    const at = smmu.kind === "smmuv3" ? this.#putSmmuV3(smmu) : this.#putSmmuV2(smmu);
    this.#offsets.set(smmu, at);
    this.#finishNode(at, [toIts]);
  }

  #putSmmuV3(smmu: SmmuIommu): number {
    const [eventGsiv = 0, priGsiv = 0, errorGsiv = 0, syncGsiv = 0] = smmu.interrupts;
    const node = this.#machine.nodes.find((one) => one.id === smmu.node);
    const at = this.#writer.put(SmmuV3, {
      ...this.#head(4, SMMU_V3_REVISION),
      base: smmu.registers.start,
      flags: (smmu.isCoherent ? 1 : 0) | (node === undefined ? 0 : 8),
      vatos: 0n,
      model: 0,
      eventGsiv,
      priGsiv,
      errorGsiv,
      syncGsiv,
    });
    const proximityDomain = node === undefined ? 0 : domainOf(node);
    this.#writer.put(SmmuV3Placement, { proximityDomain, deviceIdMapping: NO_MAPPING });
    return at;
  }

  #putSmmuV2(smmu: SmmuIommu): number {
    const [first = 0, second = 0, ...contexts] = smmu.interrupts;
    const fixed = SmmuV2.layout.bytes;
    const behind = fixed + 2 * SmmuInterrupt.layout.bytes;
    const at = this.#writer.put(SmmuV2, {
      ...this.#head(3, 3),
      base: smmu.registers.start,
      span: smmu.registers.last - smmu.registers.start + 1n,
      model: 1,
      flags: smmu.isCoherent ? 2 : 0,
      globalOffset: fixed,
      contextCount: contexts.length,
      contextOffset: behind,
      pmuCount: 0,
      pmuOffset: behind + contexts.length * SmmuInterrupt.layout.bytes,
    });
    for (const gsiv of [first, second, ...contexts]) {
      this.#writer.put(SmmuInterrupt, { gsiv, flags: 0 });
    }
    return at;
  }

  #putRootComplex(segment: number, smmus: readonly SmmuIommu[]): void {
    const bridges = this.#machine.hostBridges.filter((bridge) => bridge.segment === segment);
    const hasAts = bridges.length > 0 && bridges.every((bridge) => bridge.atsSupported === true);
    const at = this.#writer.put(RootComplex, {
      ...this.#head(2, 3),
      ...COHERENT,
      ats: hasAts ? 1 : 0,
      segment,
      addressBits: NO_ADDRESS_LIMIT,
      pasid: 0,
    });
    this.#finishNode(at, this.#routes(segment, smmus));
  }

  /** All requester ids of a segment: those of SMMUs, and the gaps between them to the ITS. */
  #routes(segment: number, smmus: readonly SmmuIommu[]): Mapping[] {
    const translated = smmus
      .flatMap((smmu) => smmu.translates.map((range) => ({ smmu, range })))
      .filter(({ range }) => range.segment === segment)
      .sort((a, b) => a.range.firstRid - b.range.firstRid);
    const routes: Mapping[] = [];
    let next = 0;
    for (const { smmu, range } of translated) {
      const { firstRid, lastRid, firstId } = range;
      if (firstRid < next) {
        const message = `functions of segment ${segment} are behind two SMMUs`;
        throw cannotDescribe("iort", message, "give ranges that do not overlap");
      }
      if (firstRid > next) routes.push(this.#toIts(next, firstRid - 1));
      const reference = this.#offsets.get(smmu)!;
      routes.push({ input: firstRid, count: lastRid - firstRid + 1, output: firstId, reference });
      next = lastRid + 1;
    }
    if (next <= RID_LAST) routes.push(this.#toIts(next, RID_LAST));
    return routes;
  }

  #toIts(first: number, last: number): Mapping {
    return { input: first, count: last - first + 1, output: first, reference: this.#its };
  }

  #putComponents(smmu: SmmuIommu): void {
    const ids = new Map<string, number[]>();
    for (const { path, id } of smmu.endpoints) {
      if (path === null) {
        const message = "an endpoint has no path in the ACPI namespace, by which IORT names it";
        throw cannotDescribe("iort", message, "give its `path`");
      }
      ids.set(path, [...(ids.get(path) ?? []), id]);
    }
    for (const [path, streams] of ids) {
      const at = this.#writer.put(NamedComponent, {
        ...this.#head(1, 4),
        ...COHERENT,
        flags: 0,
        addressBits: NO_ADDRESS_LIMIT,
      });
      this.#writer.putText(path, 4, at);
      const reference = this.#offsets.get(smmu)!;
      const mappings = streams.map((output) => ({
        input: 0,
        count: 1,
        output,
        reference,
        isSingle: true,
      }));
      this.#finishNode(at, mappings);
    }
  }

  #putRegion(region: FirmwareRegion, smmus: readonly SmmuIommu[]): void {
    const at = this.#writer.put(Rmr, {
      ...this.#head(6, 3),
      flags: 0,
      descriptorCount: 1,
      descriptorOffset: Rmr.layout.bytes,
    });
    const bytes = region.last - region.start + 1n;
    this.#writer.put(RmrDescriptor, { base: region.start, bytes });
    const mappings = (region.functions ?? []).map((range) => {
      const owner = smmus.find((smmu) =>
        smmu.translates.some(
          (one) =>
            one.segment === range.segment &&
            one.firstRid <= range.firstRid &&
            one.lastRid >= range.lastRid,
        ),
      );
      if (owner === undefined) {
        const message = "reserved memory is for functions that no SMMU translates";
        throw cannotDescribe("iort", message, "name functions behind one SMMU");
      }
      const reference = this.#offsets.get(owner)!;
      const count = range.lastRid - range.firstRid + 1;
      return { input: 0, count, output: range.firstId, reference };
    });
    this.#finishNode(at, mappings);
  }
}
