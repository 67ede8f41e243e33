/** What holds a machine back, in a sentence. */

/** A gain of all of translation below which it is not the IOMMU. */
export const TRANSLATION_GAIN_MIN = 0.02;

/** What the sentence is made of. */
export interface Judgement {
  /** Why there is no steady state; null when there is one. */
  readonly reason: string | null;
  /** The gain if translation were free. */
  readonly translationGain: number | null;
  readonly changes: readonly { readonly gain: number | null }[];
  readonly best: Helpful | null;
  /** The best change that takes no other hardware, where such are told apart. */
  readonly bestSetting?: Helpful | null;
}

interface Helpful {
  readonly what: string;
  readonly gain: number | null;
}

/** The sentence. */
export function verdictText(judgement: Judgement): string {
  const { reason, translationGain, changes, best, bestSetting = null } = judgement;
  if (reason !== null) return `no steady state: ${reason}, so no mean and no advice`;
  const unknown = changes.filter(({ gain }) => gain === null).length;
  const nothing = unknown === 0 ? "" : `, and ${unknown} changes did not settle`;
  const helps =
    best === null ? `nothing that was tried helps${nothing}` : `most helps: ${best.what}`;
  const other = bestSetting === null || bestSetting === best ? null : bestSetting;
  const settable = other === null ? "" : `; of what can be set: ${other.what}${gainOf(other)}`;
  const gain = `${best === null ? "" : gainOf(best)}${settable}`;
  if (translationGain === null) return `${helps}${gain}`;
  const isIommu = translationGain >= TRANSLATION_GAIN_MIN;
  const cost = `all of translation free: ${signed(translationGain)}`;
  return isIommu ? `${helps}${gain}; ${cost}` : `not the IOMMU (${cost}); ${helps}${gain}`;
}

function gainOf({ gain }: Helpful): string {
  return gain === null ? "" : ` (${signed(gain)})`;
}

function signed(share: number): string {
  const text = (Math.abs(share) * 100).toFixed(1);
  return `${share < 0 && text !== "0.0" ? "-" : "+"}${text} %`;
}
