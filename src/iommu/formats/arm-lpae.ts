/**
 * What both stages of Arm's long-descriptor (LPAE) page tables share: geometry by granule, and the
 * bits that descriptors of either stage have in common.
 *
 * Source: Arm Architecture Reference Manual for A-profile (DDI 0487), D8 "The AArch64 Virtual
 * Memory System Architecture": D8.2 "Translation process", D8.3 "Translation table descriptor
 * formats"; drivers/iommu/io-pgtable-arm.c: arm_lpae_alloc_pgtable, arm_lpae_restrict_pgsizes,
 * arm_lpae_concat_mandatory. Levels there count down from the start level to 3; here level 0 is
 * the last one, so level n is Arm's 3 − n.
 */
import { assert } from "../../errors.ts";
import { EntryKind, type FormatSpec, PageTableFormat } from "./format.ts";

/** Granules, log2 of bytes: 4 KiB, 16 KiB, 64 KiB. */
export type ArmGranuleShift = 12 | 14 | 16;

const BLOCK = 1;
const PAGE_OR_TABLE = 3;
const CONCATENATED_MAX = 16;

/** Access flag: without it the first access would fault. */
export const ACCESSED = 1 << 10;
const SHAREABLE_SHIFT = 8;
const INNER_SHAREABLE = 3;
const OUTER_SHAREABLE = 2;
/** Bits 54:53, execute never. */
export const NO_EXECUTE_HIGH = 3 << 21;
const SOFTWARE_SYNC_HIGH = 1 << 23;

/** What both stages take. */
export interface ArmLpaeOptions {
  readonly granuleShift: ArmGranuleShift;
  /** Width of an input address in bits (ias). */
  readonly inputBits: number;
  /** Width of an output address in bits (oas). */
  readonly outputBits: number;
  /** Whether the walk does not snoop the CPU's caches; table entries then carry bit 55. */
  readonly incoherent?: boolean;
}

/** The shape of the tables of one configuration. */
export interface ArmGeometry {
  readonly inputBits: number;
  readonly outputBits: number;
  /** Index bits of each level, leaf first; more at the top when roots are concatenated. */
  readonly indexBits: readonly number[];
  /** Arm's number of the first level walked, 0 … 3. */
  readonly startLevel: number;
  /** Tables that lie side by side at the top, 1 without concatenation. */
  readonly concatenated: number;
  readonly pageShifts: readonly number[];
}

/**
 * Works out levels, roots and page sizes.
 *
 * @param isStage2 - whether roots may be concatenated
 */
export function armGeometry(options: ArmLpaeOptions, isStage2: boolean): ArmGeometry {
  const { granuleShift } = options;
  assert([12, 14, 16].includes(granuleShift), "a granule has 4, 16 or 64 KiB");
  const addressBitsMax = granuleShift === 16 ? 52 : 48;
  const inputBits = Math.min(options.inputBits, addressBitsMax);
  const outputBits = Math.min(options.outputBits, addressBitsMax);
  const bits = granuleShift - 3;
  assert(inputBits > granuleShift, "an input address is wider than an offset in a page");
  let levels = Math.ceil((inputBits - granuleShift) / bits);
  let rootBits = inputBits - granuleShift - bits * (levels - 1);
  let concatenated = 1;
  if (isStage2 && mustConcatenate(granuleShift, 4 - levels, inputBits, outputBits)) {
    concatenated = 2 ** rootBits;
    assert(concatenated <= CONCATENATED_MAX, "at most 16 roots are concatenated");
    rootBits += bits;
    levels -= 1;
  }
  const indexBits = new Array<number>(levels - 1).fill(bits);
  indexBits.push(rootBits);
  const topShift = granuleShift + bits * (levels - 1);
  const pageShifts = leafShifts(granuleShift, outputBits).filter((shift) => shift <= topShift);
  return { inputBits, outputBits, indexBits, startLevel: 4 - levels, concatenated, pageShifts };
}

/** DDI 0487, D8.2: configurations whose initial lookup level has to be one further down. */
function mustConcatenate(
  granuleShift: number,
  startLevel: number,
  inputBits: number,
  outputBits: number,
): boolean {
  if (granuleShift === 14 && startLevel === 0) return inputBits === 48 || outputBits === 48;
  if (granuleShift === 12 && startLevel === 0) return outputBits === 40 || outputBits === 42;
  return granuleShift === 14 && startLevel === 1 && outputBits === 40;
}

function leafShifts(granuleShift: number, outputBits: number): number[] {
  if (granuleShift === 12) return [12, 21, 30];
  if (granuleShift === 14) return [14, 25];
  return outputBits > 48 ? [16, 29, 42] : [16, 29];
}

/**
 * The granule that the kernel picks out of those a unit has: the CPU's page size, else the largest
 * below, else the smallest above. Source: arm_lpae_restrict_pgsizes.
 *
 * @param supported - granules the unit has, log2 of bytes, at least one
 */
export function chooseArmGranule(
  supported: readonly ArmGranuleShift[],
  cpuPageShift: number,
): ArmGranuleShift {
  assert(supported.length > 0, "a unit has a granule");
  const below = supported.filter((shift) => shift <= cpuPageShift);
  return (below.length > 0 ? Math.max(...below) : Math.min(...supported)) as ArmGranuleShift;
}

/** Bits 1:0 of a leaf at a level. */
export function leafType(level: number): number {
  return level === 0 ? PAGE_OR_TABLE : BLOCK;
}

/** Bits 9:8: inner shareable for cached memory, else outer. */
export function shareability(isCached: boolean): number {
  return (isCached ? INNER_SHAREABLE : OUTER_SHAREABLE) << SHAREABLE_SHIFT;
}

/** Whether bits 9:8 say inner shareable. */
export function isInnerShareable(low: number): boolean {
  return ((low >>> SHAREABLE_SHIFT) & 3) === INNER_SHAREABLE;
}

/** Puts a format together out of its geometry and what a stage adds. */
export function armFormat(
  name: string,
  options: ArmLpaeOptions,
  geometry: ArmGeometry,
  stage: Pick<FormatSpec, "dirty" | "encodeLeaf" | "decodeProt" | "tableHigh" | "deniesHigh">,
): PageTableFormat {
  const { granuleShift } = options;
  const { indexBits, pageShifts } = geometry;
  const levels = indexBits.length;
  const bits = granuleShift - 3;
  return new PageTableFormat({
    name,
    style: "pages",
    granuleShift,
    indexBits,
    topLevel: levels - 1,
    tableOrder: granuleShift - 12,
    rootOrder: Math.max(0, indexBits[levels - 1]! + 3 - 12),
    inputBits: geometry.inputBits,
    signExtend: false,
    outputBits: geometry.outputBits,
    pageShifts,
    presentLow: 1,
    typeShift: 0,
    typeMask: 3,
    kinds: indexBits.map((_, level) => {
      const isBlockLevel = level > 0 && pageShifts.includes(granuleShift + level * bits);
      const block = isBlockLevel ? EntryKind.LEAF : EntryKind.RESERVED;
      const other = level === 0 ? EntryKind.LEAF : EntryKind.TABLE;
      return [EntryKind.RESERVED, block, EntryKind.RESERVED, other];
    }),
    addressLow: (0xffff_ffff << granuleShift) >>> 0,
    addressHigh: 0x0000_ffff,
    addressFold: granuleShift === 16,
    tableLow: new Array<number>(levels).fill(PAGE_OR_TABLE),
    tableHigh: stage.tableHigh | (options.incoherent === true ? SOFTWARE_SYNC_HIGH : 0),
    grantsLow: 0,
    grantsHigh: 0,
    deniesHigh: stage.deniesHigh,
    dirty: stage.dirty,
    encodeLeaf: stage.encodeLeaf,
    decodeProt: stage.decodeProt,
  });
}
