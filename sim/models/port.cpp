// Runs board_bench behind a pseudo-terminal, whose name it prints: `port /dev/pts/N`.
//
// Arguments: clock cycles a bit of the serial port; cycles without a byte either way after which it
// stops the clock until the host sends again. It ends when its standard input does.

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

#include <cstdio>
#include <memory>

#include "Vboard_bench.h"
#include "verilated.h"

namespace {

constexpr int kPoll = 1000;  // cycles between two looks at what the host has sent

// A master of a pseudo-terminal that passes every byte as it is. The slave stays open here, so that
// a host may come and go.
int open_terminal() {
  int master = posix_openpt(O_RDWR | O_NOCTTY);
  if (master < 0 || grantpt(master) || unlockpt(master)) return -1;
  int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
  termios settings;
  if (slave < 0 || tcgetattr(slave, &settings)) return -1;
  cfmakeraw(&settings);
  tcsetattr(slave, TCSANOW, &settings);
  fcntl(master, F_SETFL, O_NONBLOCK);
  return master;
}

// The host's transmitter: a byte's bits, start bit first.
struct Sender {
  unsigned bits = 0;
  int left = 0, phase = 0;
  bool idle() const { return !left; }
  void start(unsigned char byte) {
    bits = byte << 1 | 1u << 9;
    left = 10;
    phase = 0;
  }
  bool line(int divisor) {
    if (!left) return true;
    bool level = bits & 1;
    if (++phase == divisor) {
      phase = 0;
      bits >>= 1;
      --left;
    }
    return level;
  }
};

// The host's receiver: samples each bit in its middle.
struct Receiver {
  unsigned bits = 0;
  int seen = 0, phase = 0;
  bool busy = false;
  // Returns whether a byte has come.
  bool take(bool level, int divisor) {
    if (!busy) {
      busy = !level;
      seen = 0;
      phase = divisor / 2;
      return false;
    }
    if (phase--) return false;
    phase = divisor - 1;
    bits = bits >> 1 | (level ? 1u << 9 : 0);
    if (++seen < 10) return false;
    busy = false;
    return level;
  }
  unsigned char byte() const { return bits >> 1; }
};

bool closed(int file) {
  pollfd ended{file, POLLIN, 0};
  char byte;
  return poll(&ended, 1, 0) > 0 && read(file, &byte, 1) <= 0;
}

}  // namespace

int main(int count, char** words) {
  if (count != 3) return 2;
  const int divisor = atoi(words[1]);
  const long quiet = atol(words[2]);
  int master = open_terminal();
  if (master < 0) {
    perror("pseudo-terminal");
    return 1;
  }
  auto context = std::make_unique<VerilatedContext>();
  context->randReset(0);
  auto top = std::make_unique<Vboard_bench>(context.get());
  Sender sender;
  Receiver receiver;
  unsigned char waiting[4096];
  int first = 0, last = 0;
  bool booted = false;
  long still = 0;
  printf("port %s\n", ptsname(master));
  fflush(stdout);
  for (long cycle = 0; !context->gotFinish(); ++cycle) {
    if (cycle % kPoll == 0) {
      if (closed(0)) break;
      if (booted && still > quiet) {
        pollfd sent{master, POLLIN, 0};
        if (poll(&sent, 1, 100) == 0) continue;
        still = 0;
      }
    }
    if (first == last && (cycle % kPoll == 0 || sender.left == 1)) {
      int got = read(master, waiting, sizeof waiting);
      first = 0;
      last = got > 0 ? got : 0;
    }
    if (sender.idle() && first < last) sender.start(waiting[first++]);
    top->rx = sender.line(divisor);
    top->clk = 1;
    top->eval();
    top->clk = 0;
    top->eval();
    if (receiver.take(top->tx, divisor)) {
      unsigned char byte = receiver.byte();
      if (write(master, &byte, 1) < 0) still = 0;  // a host that does not read loses bytes
    }
    booted = booted || top->led_ready || top->led_error;
    still = sender.idle() && !receiver.busy && !top->led_busy ? still + 1 : 0;
  }
  top->final();
  return 0;
}
