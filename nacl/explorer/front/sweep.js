// What a sweep's file holds, as numbers again.

const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

// Arrays of numbers, or of such arrays, added place by place.
function total(arrays) {
  const [first] = arrays;
  return first.map((value, i) => (Array.isArray(value) ? total(arrays.map((a) => a[i])) : arrays.reduce((sum, a) => sum + a[i], 0)));
}

// Bins of [count, sum of confidence, sum of correct]: the points of a reliability diagram.
function reliability(bins) {
  const all = bins.reduce((sum, [count]) => sum + count, 0);
  return bins.filter(([count]) => count > 0)
    .map(([count, confidence, correct]) => ({ confidence: confidence / count, accuracy: correct / count, share: count / all }));
}

const meanConfidence = (bins) => bins.reduce((sum, [, confidence]) => sum + confidence, 0) / bins.reduce((sum, [count]) => sum + count, 0);

// A map of one byte a pixel: the highest bit says that the network is wrong, the others from 1/K to 1 how sure it is.
function unpacked(packed, classes) {
  const confidence = Float64Array.from(packed, (byte) => 1 / classes + ((byte & 127) / 127) * (1 - 1 / classes));
  return { confidence, wrong: Uint8Array.from(packed, (byte) => byte >> 7) };
}
