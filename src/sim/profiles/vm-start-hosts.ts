/**
 * The machines on which starts of VMs were measured: pinning of memory, and BARs without pages.
 *
 * Each is fitted on one row of its own table. What a table says nothing about is taken from another
 * one, and its source names it.
 */
import { type Price, PriceList } from "../price-list.ts";
import type { VmStartMachine } from "../workload/vm-start.ts";
import {
  OLD_LEAF_NS,
  OLD_WALKED_LEAF_NS,
  oldMapPrices,
  oldUnmapPrices,
  tablesThread,
  unitPrice,
} from "./kernel-tables.ts";

const GIB = 2 ** 18;
const TABLE_ENTRIES = 512;

const pinThread = "vfio/type1: Batch page pinning, Linux commit 4d83de6da265, 2021";
const backingThread = "20250630072518.31846-1: VFIO map and unmap of 16 GiB, Linux 6.16-rc4";
const barThread = "vfio: avoid unnecessary pin memory when dma map io address space, 2024";
const strideThread = "Linux commit 356e88ebe447: mapping a 16 GiB BAR";

function machine(
  map: readonly Price[],
  unmap: readonly Price[],
  startNs: number = 0,
): VmStartMachine {
  const prices = {
    map: new PriceList([...oldMapPrices, ...map]),
    unmap: new PriceList([...oldUnmapPrices, ...unmap]),
  };
  return { prices, startNs };
}

// Batched pinning: the two ends of the row without batches.
const BASE_1_GIB_S = 0.61;
const BASE_120_GIB_S = 32.45;
const GIB_S = (BASE_120_GIB_S - BASE_1_GIB_S) / 119;
const FRESH_PAGE_NS = (GIB_S * 1e9) / GIB;

/** Share of the time that the profile of the row without batches gives to clear_page_erms. */
const CLEARING_SHARE = 0.786;
/** A page zeroed, on that machine: 5.1 GB/s. */
const CLEAR_NS = FRESH_PAGE_NS * CLEARING_SHARE;

// BARs of eight GPUs: 8 × 192 GiB, by the page.
const BARS_S = 50.79;
const BAR_PAGES = 8 * 192 * GIB;
/** A leaf of 4 KiB, with its part of the table that it is in. */
const SMALL_LEAF_NS = OLD_LEAF_NS + CLEAR_NS / TABLE_ENTRIES;
/** An entry of 4 KiB in the process's table, each a walk from the top, with its part likewise. */
const INSERTED_NS = OLD_WALKED_LEAF_NS + CLEAR_NS / TABLE_ENTRIES;
const LOOKUP_NS = (BARS_S * 1e9) / BAR_PAGES - SMALL_LEAF_NS - INSERTED_NS;

/** A refused GUP and a lookup walk the same table down: half the price each. */
function lookupPrices(ns: number, source: string, fittedOn: string): Price[] {
  const half = `${source}; a refused GUP and the lookup after it at half each`;
  return [
    unitPrice("pinRefused", ns / 2, half, fittedOn),
    unitPrice("pfnLookup", ns / 2, half, fittedOn),
  ];
}

const callPrice = unitPrice(
  "pinBatch",
  LOOKUP_NS / 2,
  `${barThread}: as much as a call of GUP that is refused`,
);

// Backings: both cells of transparent huge pages.
const BACKING_PAGES = 16 * GIB;
const PIN_NS = 0.047e9 / BACKING_PAGES - LOOKUP_NS / 2 / 512;
const UNPIN_NS = 0.135e9 / BACKING_PAGES;

const pinPrice = (fittedOn: string | null) =>
  unitPrice("pagePin", PIN_NS, `${backingThread}: huge pages, map, by 4 KiB`, fittedOn);

/** What mapping one page of fresh memory costs beyond the calls and the pins. */
const FAULT_NS = FRESH_PAGE_NS - LOOKUP_NS / 2 - PIN_NS;

/** A two-node Broadwell server; guest memory not touched before. */
export const batchPinningHost = machine(
  [
    unitPrice(
      "pageFault",
      FAULT_NS,
      `${pinThread}: a page faulted in and zeroed (78.6 % of the time is clear_page_erms)`,
      "base: 1 and 120 GiB",
    ),
    pinPrice(null),
    callPrice,
  ],
  [],
  (BASE_1_GIB_S - GIB_S) * 1e9,
);

const unpinSource = `${backingThread}: huge pages, unmap; a lookup and an unpin at half each`;
const HUGE_ROW = "transparent huge pages: map and unmap";

/** The machine on which kinds of backing were compared. */
export const backingHost = machine(
  [pinPrice(HUGE_ROW), callPrice],
  [
    unitPrice("physLookup", UNPIN_NS / 2, unpinSource, HUGE_ROW),
    unitPrice("pageUnpin", UNPIN_NS / 2, unpinSource, HUGE_ROW),
  ],
);

const clearPrice = unitPrice(
  "tableAlloc",
  CLEAR_NS,
  `${pinThread}: a table is a zeroed page, at the rate of clear_page_erms there`,
);

const insertPrice = unitPrice(
  "pageFault",
  INSERTED_NS,
  `${tablesThread}: x86, map, 256x2^12 less 2^12, old (a walk for each leaf), and a zeroed table`,
);

/** The host of eight GPUs. */
export const barHost = machine(
  [...lookupPrices(LOOKUP_NS, barThread, "by the page: 50.79 s"), clearPrice, insertPrice],
  [],
);

/** The Xeon E5 with a BAR of 16 GiB. */
export const strideHost = machine(
  [...lookupPrices(0.4e9 / (16 * GIB), strideThread, "by the page: 0.4 s"), clearPrice],
  [],
);
