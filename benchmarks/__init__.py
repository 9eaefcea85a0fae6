"""What a forwarded frame costs, here and elsewhere: `python -m benchmarks`.

How it is measured, and why so:

- Three processes per measurement: the *upstream* (upstream.py) that answers, the *contestant* that
  is measured, and the *load* (load.py) that asks. The contestant has the first core for itself; the
  other two share the rest. Upstream and load are bare epoll loops on sockets, so that what they cost
  stays far below what anybody in between does.
- The upstream takes its orders from the prompt (frames.py), since a gateway passes a prompt on when
  it drops or rewrites everything else. What the two ends have to tell each other besides stands on a
  shared page of memory (board.py).
- CPU is what the kernel has accounted to the contestant's process and all its descendants
  (accounting.py), read at both ends of a window in which nothing starts or ends. Nobody reports on
  itself.
- Every output frame carries the instant it was written, so latency is known frame by frame on one
  clock. What the two ends need by themselves is measured the same way without anybody in between
  (`direct`) and taken off.
- Each measurement has a fresh contestant, warmed up. Contestants take turns within a round, so that
  a noisy minute hits all of them; figures are medians over the rounds.
"""
