// What sim/toggles.py puts into a netlist calls these; toggles.txt is written at the end.
//
// A counter of 64 nets is kept bit-sliced: word k of it holds bit k of all 64 counts.

#include <cstdint>
#include <cstdio>
#include <vector>

namespace {

struct Counters {
  uint64_t before = 0;
  std::vector<uint64_t> planes;

  void add(uint64_t ones) {
    for (size_t k = 0; ones; ++k) {
      if (k == planes.size()) planes.push_back(0);
      const uint64_t carry = planes[k] & ones;
      planes[k] ^= ones;
      ones = carry;
    }
  }

  uint64_t count(int net) const {
    uint64_t result = 0;
    for (size_t k = 0; k < planes.size(); ++k) result |= (planes[k] >> net & 1) << k;
    return result;
  }
};

using Groups = std::vector<Counters>;

Groups changed, high;
uint64_t cycles = 0;
int last = -2;
bool first = true;  // of a run of cycles: there is nothing before it to differ from

Counters& at(Groups& groups, int index) {
  if (groups.size() <= static_cast<size_t>(index)) groups.resize(index + 1);
  return groups[index];
}

void write(FILE* file, const Groups& groups) {
  for (const Counters& group : groups)
    for (int net = 0; net < 64; ++net)
      fprintf(file, "%llu ", static_cast<unsigned long long>(group.count(net)));
  fprintf(file, "\n");
}

}  // namespace

extern "C" void toggles_cycle(int cycle) {
  first = cycle != last + 1;
  last = cycle;
  ++cycles;
}

extern "C" void toggles_changed(int index, long long nets) {
  Counters& group = at(changed, index);
  if (!first) group.add(group.before ^ static_cast<uint64_t>(nets));
  group.before = nets;
}

extern "C" void toggles_high(int index, long long nets) { at(high, index).add(nets); }

extern "C" void toggles_write() {
  FILE* file = fopen("toggles.txt", "w");
  fprintf(file, "%llu\n", static_cast<unsigned long long>(cycles));
  write(file, changed);
  write(file, high);
  fclose(file);
}
