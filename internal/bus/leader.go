package bus

import (
	"context"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"leadpipe/contracts"
	"leadpipe/internal/outcome"
)

// On a cluster a durable that gets a new leader may forget what the former one delivered
// in its last moments: the server (2.15) was seen to take such messages for acknowledged,
// and they never came again. So what was in hand at a change of leader is handled once more
// beside the durable. What is done changes nothing then.
//
// What was in hand lies between the last floor of acknowledgements that the former leader
// told us, and what the new one has delivered.

const (
	// leaderEvery is how often the durable is asked who leads it.
	leaderEvery = 2 * time.Second
	// leaderRest is how long the durable itself has for what was in hand.
	leaderRest = 3 * time.Second
	// recentChange is how long a change of leader matters to a process that starts after
	// it, and before how far back it looks from there. It knows no floor.
	recentChange = 10 * time.Minute
	before       = 2 * time.Minute
	// mostRounds is after how many rounds what still fails gets its incident: a day, as
	// for the durable's own messages.
	mostRounds = 150
)

// A reign is what the durable said of itself while one server led it.
type reign struct {
	leader string
	since  time.Time
	floor  uint64 // the sequence up to which all is acknowledged
}

// inHand is what has to be handled again: a part of the stream, or some of its messages.
type inHand struct {
	part  Range
	left  map[uint64]bool // the sequences that were not done in the round before; nil: all
	round int
	next  time.Time // of the next round; zero: there is nothing to do
}

// followLeader watches who leads the durable, until ctx ends; what it handles then has
// until work ends. info is what the durable said of itself before anything was fetched.
func (l *Loop) followLeader(ctx, work context.Context, info *jetstream.ConsumerInfo) {
	var last reign
	var todo inHand
	t := time.NewTicker(leaderEvery)
	defer t.Stop()
	for {
		if info.Cluster != nil && info.Cluster.Leader != "" {
			last = l.reigns(info, last, &todo)
		}
		if !todo.next.IsZero() && !time.Now().Before(todo.next) {
			l.handleInHand(ctx, work, &todo)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if c, err := l.js.Consumer(ctx, l.o.Stream, l.o.Durable); err == nil {
			info = c.CachedInfo()
		}
	}
}

// reigns compares what the durable says with what it said last, and enters what was in
// hand if another server leads it now.
func (l *Loop) reigns(info *jetstream.ConsumerInfo, last reign, todo *inHand) reign {
	now := reign{leader: info.Cluster.Leader, floor: info.AckFloor.Stream}
	if info.Cluster.LeaderSince != nil {
		now.since = *info.Cluster.LeaderSince
	}
	part := Range{Stream: l.o.Stream, Subjects: Subjects(info.Config), First: last.floor + 1, Last: info.Delivered.Stream}
	switch {
	case now.leader == last.leader && now.since.Equal(last.since):
		return now
	case last.leader == "" && (now.since.IsZero() || time.Since(now.since) > recentChange):
		return now
	case last.leader == "":
		part.First, part.Since = 0, now.since.Add(-before)
	case !todo.next.IsZero() && todo.part.Since.IsZero():
		part.First = min(part.First, todo.part.First)
	case !todo.next.IsZero(): // of a start: that was not far back either
		part.First, part.Since = 0, todo.part.Since
	}
	*todo = inHand{}
	if part.Last >= part.First && part.Last > 0 {
		*todo = inHand{part: part, next: time.Now().Add(leaderRest)}
		l.log.Info("another server leads the durable; what was in hand is handled again", "leader", now.leader, "from", part.First, "to", part.Last)
	}
	return now
}

// handleInHand makes one round over what was in hand, and says in todo what is left.
func (l *Loop) handleInHand(ctx, work context.Context, todo *inHand) {
	todo.round++
	left, final := map[uint64]bool{}, todo.round >= mostRounds
	var batch []contracts.Message
	blocked := false
	handle := func() {
		for i, err := range l.Replay(work, batch) {
			o := outcome.Of(err)
			switch {
			case err == nil || o.Kind == outcome.KindPermanent:
			case final && o.Kind == outcome.KindTemporary:
				if err := l.record(work, batch[i], o); err != nil {
					left[batch[i].Sequence] = true
				}
			default:
				left[batch[i].Sequence] = true
				blocked = blocked || o.Kind == outcome.KindBlocked
			}
		}
		batch = batch[:0]
	}
	err := Messages(ctx, l.js, todo.part, func(m contracts.Message, _ uint64) error {
		if todo.left != nil && !todo.left[m.Sequence] {
			return nil
		}
		m.Attempt = 2 // those that come for the first time go first
		if blocked {  // the provider takes nothing, so it is not asked for each
			left[m.Sequence] = true
			return nil
		}
		if batch = append(batch, m); len(batch) >= max(l.o.Max, l.o.Workers) {
			handle()
		}
		return ctx.Err()
	})
	if err == nil && len(batch) > 0 {
		handle()
	}
	switch {
	case ctx.Err() != nil:
	case err != nil: // again as it is
		l.log.Warn("what was in hand could not be read", "reason", err.Error())
		todo.next = time.Now().Add(leaderRest)
	case len(left) == 0 || todo.round > mostRounds:
		*todo = inHand{}
	default:
		todo.left, todo.next = left, time.Now().Add(min(lastPause, leaderRest<<min(todo.round, 10)))
	}
}
