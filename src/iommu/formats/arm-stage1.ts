/**
 * Stage 1 of Arm's LPAE page tables.
 *
 * Source: Arm Architecture Reference Manual for A-profile (DDI 0487), D8.3.1 "VMSAv8-64 descriptor
 * formats", D8.4 "Memory access control"; drivers/iommu/io-pgtable-arm.c:arm_lpae_prot_to_pte.
 * Names there → here: AP[2] → not WRITE; AP[1] → not PRIV; AttrIndx 0 not cached, 1 cached,
 * 2 device; SH inner → CACHE; XN → NOEXEC; DBM → writable, dirty state kept in AP[2]. Writing
 * without reading cannot be expressed and becomes both.
 */
import { Errno } from "../../errno.ts";
import { Prot } from "../prot.ts";
import {
  ACCESSED,
  type ArmLpaeOptions,
  armFormat,
  armGeometry,
  isInnerShareable,
  leafType,
  NO_EXECUTE_HIGH,
  shareability,
} from "./arm-lpae.ts";
import type { EntryWords, PageTableFormat } from "./format.ts";

const ATTRIBUTE_SHIFT = 2;
const NOT_SECURE = 1 << 5;
const TABLE_NOT_SECURE_HIGH = 1 << 31;
const ATTRIBUTE_CACHED = 1;
const ATTRIBUTE_DEVICE = 2;
const UNPRIVILEGED = 1 << 6;
const READ_ONLY = 1 << 7;
const NOT_GLOBAL = 1 << 11;
/** Bit 51, dirty bit modifier. */
const DIRTY_MODIFIER_HIGH = 1 << 19;
/** APTable, bits 62:61 of a table entry. */
const TABLES_READ_ONLY_HIGH = 1 << 30;
const TABLES_PRIVILEGED_HIGH = 1 << 29;

/** What stage 1 takes. */
export interface ArmStage1Options extends ArmLpaeOptions {
  /** Whether descriptors are marked non-secure. */
  readonly nonSecure?: boolean;
  /** Whether the unit keeps dirty state (HD). */
  readonly dirty?: boolean;
}

/** Stage 1 with these options. */
export function armStage1(options: ArmStage1Options): PageTableFormat {
  const geometry = armGeometry(options, false);
  const name = `arm-stage1-${2 ** (options.granuleShift - 10)}k-${geometry.inputBits}`;
  const notSecure = options.nonSecure === true ? NOT_SECURE : 0;
  return armFormat(name, options, geometry, {
    tableHigh: options.nonSecure === true ? TABLE_NOT_SECURE_HIGH : 0,
    deniesHigh: TABLES_READ_ONLY_HIGH | TABLES_PRIVILEGED_HIGH,
    dirty:
      options.dirty === true
        ? {
            lowMask: READ_ONLY,
            highMask: DIRTY_MODIFIER_HIGH,
            lowDirty: 0,
            highDirty: DIRTY_MODIFIER_HIGH,
            lowFlip: READ_ONLY,
          }
        : null,
    encodeLeaf(prot: number, level: number, _pageShift: number, out: EntryWords): number {
      if ((prot & (Prot.READ | Prot.WRITE)) === 0) return Errno.EINVAL;
      const isReadOnly = (prot & Prot.WRITE) === 0;
      const isCached = (prot & Prot.CACHE) !== 0;
      const attribute = prot & Prot.MMIO ? ATTRIBUTE_DEVICE : isCached ? ATTRIBUTE_CACHED : 0;
      out.low =
        leafType(level) |
        (attribute << ATTRIBUTE_SHIFT) |
        notSecure |
        (prot & Prot.PRIV ? 0 : UNPRIVILEGED) |
        (isReadOnly ? READ_ONLY : 0) |
        shareability(isCached) |
        ACCESSED |
        NOT_GLOBAL;
      out.high =
        (options.dirty === true && !isReadOnly ? DIRTY_MODIFIER_HIGH : 0) |
        (prot & Prot.NOEXEC ? NO_EXECUTE_HIGH : 0);
      return Errno.OK;
    },
    decodeProt(
      low: number,
      high: number,
      _tablesAndLow: number,
      _tablesAndHigh: number,
      tablesOrHigh: number,
    ): number {
      const isWritable =
        ((low & READ_ONLY) === 0 || (high & DIRTY_MODIFIER_HIGH) !== 0) &&
        (tablesOrHigh & TABLES_READ_ONLY_HIGH) === 0;
      const isPrivileged =
        (low & UNPRIVILEGED) === 0 || (tablesOrHigh & TABLES_PRIVILEGED_HIGH) !== 0;
      const attribute = (low >>> ATTRIBUTE_SHIFT) & 7;
      return (
        Prot.READ |
        (isWritable ? Prot.WRITE : 0) |
        (isInnerShareable(low) ? Prot.CACHE : 0) |
        (attribute === ATTRIBUTE_DEVICE ? Prot.MMIO : 0) |
        ((high & NO_EXECUTE_HIGH) !== 0 ? Prot.NOEXEC : 0) |
        (isPrivileged ? Prot.PRIV : 0)
      );
    },
  });
}
