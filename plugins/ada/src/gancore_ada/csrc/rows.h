// Between stored images of type T and pixels of numbers W. Included once a type. `plane`: elements from one channel
// to the next where each is stored apart, 0 where channels lie side by side.

GAN_CLONES void load4(W* __restrict out, const T* __restrict in, int64_t plane, int64_t n) {
  using N = gancore::Number<T>;
  if (plane != 0) {
    for (int64_t i = 0; i < n; ++i) {
      out[4 * i] = N::load(in[i]);
      out[4 * i + 1] = N::load(in[i + plane]);
      out[4 * i + 2] = N::load(in[i + 2 * plane]);
      out[4 * i + 3] = 0;
    }
  } else {
    for (int64_t i = 0; i < n; ++i) {
      out[4 * i] = N::load(in[3 * i]);
      out[4 * i + 1] = N::load(in[3 * i + 1]);
      out[4 * i + 2] = N::load(in[3 * i + 2]);
      out[4 * i + 3] = 0;
    }
  }
}

GAN_CLONES void store4(T* __restrict out, const W* __restrict in, int64_t plane, int64_t n) {
  using N = gancore::Number<T>;
  if (plane != 0) {
    for (int64_t i = 0; i < n; ++i) {
      out[i] = N::store(in[4 * i]);
      out[i + plane] = N::store(in[4 * i + 1]);
      out[i + 2 * plane] = N::store(in[4 * i + 2]);
    }
  } else {
    for (int64_t i = 0; i < n; ++i) {
      out[3 * i] = N::store(in[4 * i]);
      out[3 * i + 1] = N::store(in[4 * i + 1]);
      out[3 * i + 2] = N::store(in[4 * i + 2]);
    }
  }
}

GAN_CLONES void load1(W* __restrict out, const T* __restrict in, int64_t, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = gancore::Number<T>::load(in[i]);
}

GAN_CLONES void store1(T* __restrict out, const W* __restrict in, int64_t, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = gancore::Number<T>::store(in[i]);
}
