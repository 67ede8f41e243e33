/**
 * What Linux makes of an MCFG: where the configuration space of each segment is mapped. Source:
 * Linux 7.2 drivers/acpi/pci_mcfg.c, arch/x86/pci/mmconfig-shared.c.
 */
import type { HostBridge } from "../../topology/machine.ts";
import { itemsOf, type Structure } from "../table-item.ts";
import { EcamRange } from "./mcfg.ts";
import type { MachineParts, ReadContext } from "./reading.ts";

/** Reads an MCFG; an entry is one host bridge until better is known. */
export function readMcfg(root: Structure, { findings }: ReadContext): MachineParts {
  const hostBridges: HostBridge[] = [];
  const entries = itemsOf(root, EcamRange);
  if (entries.length === 0) {
    findings.add({
      code: "mcfg/empty",
      severity: "warning",
      at: root.at,
      message: "The table has no entry",
      effect: "Functions have 256 bytes of configuration space: no ATS, PRI or PASID",
      source: "arch/x86/pci/mmconfig-shared.c: pci_parse_mcfg",
    });
  }
  for (const { at, values } of entries) {
    const { base, segment, firstBus, lastBus } = values;
    if (lastBus < firstBus || base === 0n) {
      findings.add({
        code: "mcfg/range",
        severity: "error",
        at,
        message: base === 0n ? "The address is 0" : `Bus ${lastBus} lies before bus ${firstBus}`,
        effect: "Linux refuses the entry; on x86 the whole table",
        source: "arch/x86/pci/mmconfig-shared.c: pci_mmconfig_alloc",
      });
      continue;
    }
    hostBridges.push({
      segment,
      firstBus,
      lastBus,
      node: null,
      ecamBase: base,
      windows: [],
      bypassesIommu: false,
      atsSupported: null,
    });
  }
  return { hostBridges };
}
