package sheets

import (
	"context"
	"time"

	"golang.org/x/time/rate"
)

// perMinute allows at most n calls in any 60 seconds: a sixth of them at once, and
// the others one after the other. A few are kept for calls that were paid for before
// (see setAside).
func perMinute(n int) *rate.Limiter {
	burst := max(1, n/6)
	return rate.NewLimiter(rate.Limit(float64(max(1, n-burst-inAdvance(n)))/60), burst)
}

// inAdvance is how many calls of a quota may be paid for in advance.
func inAdvance(n int) int {
	if n < 30 {
		return 0
	}
	return 4
}

// setAside pays for calls of an audit before it begins a slice, so that no change that
// comes has to wait while the slice waits for quota: one call at a time, and slowly where
// changes need most of the quota.
func (c *client) setAside(ctx context.Context, reads, writes int) error {
	for _, q := range []struct {
		limit *rate.Limiter
		paid  *int
		want  int
	}{{c.reads, &c.paidReads, min(reads, c.advance[0])}, {c.writes, &c.paidWrites, min(writes, c.advance[1])}} {
		for *q.paid < q.want {
			if busy := q.limit.TokensAt(c.now()) < float64(q.limit.Burst())/2; busy {
				if err := c.sleep(ctx, slowly); err != nil {
					return err
				}
			}
			now := c.now()
			if err := c.sleep(ctx, q.limit.ReserveN(now, 1).DelayFrom(now)); err != nil {
				return err
			}
			*q.paid++
		}
	}
	return nil
}

// lookAndWrite is how many reads, and how many writes, a few new rows take.
const lookAndWrite = 2

// wait is how long it takes until there is quota for a few new rows.
func (c *client) wait() time.Duration {
	return max(c.until(c.reads, lookAndWrite), c.until(c.writes, lookAndWrite))
}

// until is how long it takes until a limit allows n calls at once, or as many as it ever
// does.
func (c *client) until(limit *rate.Limiter, n int) time.Duration {
	missing := float64(min(n, limit.Burst())) - limit.TokensAt(c.now())
	return max(0, time.Duration(missing/float64(limit.Limit())*float64(time.Second)))
}

// slowly is the pause before each call that is paid for while changes come.
const slowly = 3 * time.Second

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// awaitWrite returns when a write could begin at once. To wait before reading keeps
// the time short in which a person can move what was read.
func (c *client) awaitWrite(ctx context.Context) error {
	if c.spends && c.paidWrites > 0 {
		return ctx.Err()
	}
	return c.sleep(ctx, c.until(c.writes, 1))
}

// spareRead says whether a read that could be done without would leave enough for
// those that could not. An audit's are paid for.
func (c *client) spareRead() bool {
	return c.spends || c.reads.TokensAt(c.now()) >= float64(c.reads.Burst())/2
}
