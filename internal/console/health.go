package console

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"leadpipe/contracts"
)

// A durable is one consumer as the page shows it.
type durable struct {
	Name   string `json:"name"`
	Stream string `json:"stream"`
	State  string `json:"state"` // see look
	Lag    uint64 `json:"lag"`   // messages not taken yet
	Hand   int    `json:"hand"`  // taken, not settled
	Again  int    `json:"again"` // of those, delivered more than once
	Last   int64  `json:"last,omitempty"`
	Why    string `json:"why,omitempty"` // of one that is off

	floor, delivered uint64
	moved            time.Time // when it last was seen to get on, or to ask for work
}

// The states of a durable.
const (
	stateUnknown = "unknown" // not asked yet, or NATS does not answer
	stateIdle    = "idle"    // nothing to do
	stateBusy    = "busy"    // at work
	stateWaiting = "waiting" // tries something again
	stateNobody  = "nobody"  // no process runs it
	stateOff     = "off"     // not configured
)

// patience is how long a durable may ask for no work before nobody is said to run it.
const patience = 4 * time.Second

func durables(off map[string]string) []durable {
	all := []durable{
		{Name: contracts.Billing, Stream: contracts.StreamWebhooks}, {Name: contracts.Leads, Stream: contracts.StreamWebhooks},
		{Name: contracts.Optouts, Stream: contracts.StreamWebhooks}, {Name: contracts.SMSSender, Stream: contracts.StreamCRM},
		{Name: contracts.Blacklist, Stream: contracts.StreamCRM}, {Name: contracts.Sheets, Stream: contracts.StreamCRM},
	}
	for i := range all {
		all[i].State = stateUnknown
		all[i].Why = off[all[i].Name]
	}
	return all
}

// pollHealth asks how far the durables are: every second while somebody looks, four
// times that while one of the newest webhooks is still under way, and else now and then.
func (c *Console) pollHealth(ctx context.Context) {
	for {
		c.ask(ctx)
		c.mu.Lock()
		wait, waiting := 5*time.Second, c.book.waiting(time.Now())
		switch {
		case len(c.viewers) > 0 && waiting:
			wait = 250 * time.Millisecond
		case len(c.viewers) > 0 || waiting:
			wait = time.Second
		}
		c.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

func (c *Console) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	infos := make([]*jetstream.ConsumerInfo, len(c.health))
	errs := make([]error, len(c.health))
	var wg sync.WaitGroup
	for i, d := range durables(nil) {
		wg.Go(func() {
			cons, err := c.o.JS.Consumer(ctx, d.Stream, d.Name)
			if errs[i] = err; err == nil {
				infos[i] = cons.CachedInfo()
			}
		})
	}
	wg.Wait()
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	reached := map[string]reach{}
	for i := range c.health {
		d := &c.health[i]
		before := *d
		d.look(infos[i], errs[i], now)
		reached[d.Name] = reach{d.floor, now}
		if infos[i] != nil && infos[i].AckFloor.Last != nil && infos[i].AckFloor.Last.Before(now) {
			reached[d.Name] = reach{d.floor, *infos[i].AckFloor.Last}
		}
		if d.State != before.State || d.Lag != before.Lag || d.Hand != before.Hand || d.Again != before.Again || d.Last != before.Last {
			c.dirty.health = true
		}
	}
	for _, e := range c.book.progress(reached) {
		c.dirty.entry(e)
	}
}

// look reads what the server says of the durable.
func (d *durable) look(info *jetstream.ConsumerInfo, err error, now time.Time) {
	if info == nil {
		d.State = stateUnknown
		if d.Why != "" || errors.Is(err, jetstream.ErrConsumerNotFound) {
			d.State, d.Lag, d.Hand, d.Again = stateOff, 0, 0, 0
		}
		return
	}
	if info.NumWaiting > 0 || info.AckFloor.Stream != d.floor || info.Delivered.Stream != d.delivered || d.moved.IsZero() {
		d.moved = now
	}
	d.Lag, d.Hand, d.Again = info.NumPending, info.NumAckPending, info.NumRedelivered
	d.floor, d.delivered = info.AckFloor.Stream, info.Delivered.Stream
	// A durable that only has messages of others before it is past them too.
	if d.Lag == 0 && d.Hand == 0 {
		d.floor = max(d.floor, d.delivered)
	}
	d.Last = 0
	if info.AckFloor.Last != nil {
		d.Last = info.AckFloor.Last.UnixMilli()
	}
	switch {
	case now.Sub(d.moved) > patience && d.Why != "":
		d.State = stateOff
	case now.Sub(d.moved) > patience:
		d.State = stateNobody
	case d.Again > 0:
		d.State = stateWaiting
	case d.Lag > 0 || d.Hand > 0:
		d.State = stateBusy
	default:
		d.State = stateIdle
	}
}
