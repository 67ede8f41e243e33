/**
 * The mapping of an SMMUv3 that is for its own interrupts alone: before revision 5 of the node it
 * counts unless all interrupts are wired, from then on where a flag says so. Linux skips it for the
 * devices behind the SMMU. Source: drivers/acpi/arm64/iort.c: iort_get_smmu_v3_id_mapping_index,
 * iort_node_map_id.
 */
import { itemsOf, type StructureOf } from "../table-item.ts";
import { IdMapping, type SmmuV3, SmmuV3Placement } from "./iort.ts";

/** Flag of a node of revision 5: the index counts. */
const DEVICE_ID_VALID = 16;

/** What to say of an SMMU whose devices' ids lead through its own mapping; null where none do. */
export function ownMapping(node: StructureOf<typeof SmmuV3.layout.fields>) {
  const { revision, flags, eventGsiv, priGsiv, errorGsiv, syncGsiv } = node.values;
  const placement = itemsOf(node, SmmuV3Placement)[0];
  if (revision < 1 || placement === undefined) return null;
  const allWired = eventGsiv !== 0 && priGsiv !== 0 && errorGsiv !== 0 && syncGsiv !== 0;
  const isValid = revision < 5 ? !allWired : (flags & DEVICE_ID_VALID) !== 0;
  const { deviceIdMapping } = placement.values;
  const mapping = itemsOf(node, IdMapping)[deviceIdMapping];
  // A single mapping is what the SMMU's own id needs.
  if (!isValid || mapping === undefined || (mapping.values.flags & 1) !== 0) return null;
  return {
    at: placement.at + SmmuV3Placement.layout.at.deviceIdMapping,
    message: `Mapping ${deviceIdMapping} of many ids is for the SMMU's own interrupts`,
    effect: "Linux skips it for devices behind the SMMU: by it their MSIs reach no ITS",
    where: "iort_node_map_id",
  };
}
