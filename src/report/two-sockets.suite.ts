/** A server of two sockets with one unit on the wrong one, for the tests of what is printed of it. */
import { machineFromYaml } from "../config/read-machine.ts";
import { inspectMachine } from "../host/inspect.ts";
import type { InspectResult } from "../host/inspect-result.ts";

const ACS = "acs: { capability: 0x1d, control: 0x1d }";

const text = `schema: iommukit/topology@1
nodes:
  - { id: 0, cpus: 0-31, memoryBytes: 256GiB, distances: [10, 21] }
  - { id: 1, cpus: 32-63, memoryBytes: 256GiB, distances: [21, 10] }
hostBridges:
  - { buses: 0000:00-3f, node: 0 }
  - { buses: 0000:80-bf, node: 1 }
functions:
  - { at: 0:1.0, id: 8086:352a, buses: 1, ${ACS}, iommu: dmar0, driver: pcieport }
  - { at: 1:0.0, bridge: 0:1.0, id: 10de:2330, class: 0x030200, iommu: dmar0, driver: vfio-pci }
  - { at: 0:1e.0, id: 8086:1bcc, class: 0x0c0330, iommu: dmar0, driver: xhci_hcd }
  - { at: 0:1e.1, id: 8086:1bca, class: 0x0c0500, iommu: dmar0 }
  - { at: 80:1.0, id: 8086:352a, buses: 81, ${ACS}, iommu: dmar1, driver: pcieport }
  - { at: 81:0.0, bridge: 80:1.0, id: 15b3:1021, class: 0x020700, iommu: dmar1, ats: { enabled: true } }
iommus:
  - { name: dmar0, kind: vtd, node: 1, registers: 0xd37fc000-0xd37fcfff, rest: true }
  - { name: dmar1, kind: vtd, node: 1, registers: 0xee7fc000-0xee7fcfff, translates: [] }
`;

/** What `inspect` finds. */
export const twoSockets: InspectResult = inspectMachine(machineFromYaml(text, "two-sockets.yaml"));
