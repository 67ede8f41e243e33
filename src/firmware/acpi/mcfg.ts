/**
 * MCFG, where PCI configuration space is mapped. Source: PCI Firmware specification 3.3, 4.1.2.
 */
import { address, structure, u8, u16 } from "../table-format.ts";
import { headerFields } from "./header.ts";

/** Buses of one segment. */
export const EcamRange = structure("ecam", null, "Configuration space", 16, {
  base: address(0, "where bus 0 would start, whatever the first bus is"),
  segment: u16(8, "PCI segment"),
  firstBus: u8(10, "first bus"),
  lastBus: u8(11, "last bus, inclusive"),
});

/** The table. */
export const Mcfg = structure("MCFG", null, "PCI configuration space", 44, headerFields, [
  { part: "array", of: EcamRange, at: 44, count: "rest" },
]);
