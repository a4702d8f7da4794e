package bus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"leadpipe/contracts"
)

const (
	// singlesAtOnce is how many messages are sent one by one before others wait: below
	// it a group of the rest would take longer than they do.
	singlesAtOnce = 16
	// singlesInCrowd takes its place for crowdHolds after a group: its callers are about
	// to come again, and the next group forms sooner behind few.
	singlesInCrowd, crowdHolds = 4, 20 * time.Millisecond
	// leastGroup is how many must wait for a group: it costs the server about as much
	// as a dozen messages do one by one.
	leastGroup = 16
	// mostGroup and mostGroupBytes bound a group; the server takes 1,000 messages.
	mostGroup, mostGroupBytes = 512, 4 << 20
	// largeMessage is sent by itself at once, so that small ones don't wait for it.
	largeMessage = 128 << 10
	// mostWaiting and mostWaitingBytes bound what waits. A request that finds less
	// waiting is taken whole.
	mostWaiting, mostWaitingBytes = 8192, 128 << 20
)

// A queue holds the messages that wait to be sent. Whatever can be sent is sent at
// once; a group is what has gathered while others were on their way.
type queue struct {
	mu       sync.Mutex
	waiting  []*item
	bytes    int
	singles  int       // first tries under way
	grouping bool      // a group, or a measurement, is under way
	asking   bool      // for the stream's configuration
	crowd    time.Time // when the last group ended
	pace     pace
}

// An item is one message of a request.
type item struct {
	ctx  context.Context
	msg  contracts.Message
	done chan<- error // has room
}

func large(m contracts.Message) bool { return len(m.Data) > largeMessage }

// groups says whether messages go through the queue now.
func (p *Publisher) groups() bool {
	switch p.mode {
	case PublishSingle:
		return false
	case PublishGroup:
		return true
	default:
		p.queue.mu.Lock()
		defer p.queue.mu.Unlock()
		return !p.queue.pace.isSingle(time.Now())
	}
}

// limits are how many are sent one by one at once, and how many make a group. The
// queue is locked.
func (p *Publisher) limits() (singles, group int) {
	if p.mode == PublishGroup {
		return 1, 2
	}
	if time.Since(p.queue.crowd) < crowdHolds {
		return singlesInCrowd, leastGroup
	}
	return singlesAtOnce, leastGroup
}

func (p *Publisher) publishQueued(ctx context.Context, msgs []contracts.Message) error {
	if len(msgs) > 1 {
		one, cancel := context.WithCancel(ctx) // one that fails takes the others out of the queue
		defer cancel()
		ctx = one
	}
	q := &p.queue
	q.mu.Lock()
	most, _ := p.limits()
	if len(msgs) == 1 && !q.grouping && len(q.waiting) == 0 && q.singles < most {
		q.singles++
		q.mu.Unlock()
		return p.publish(ctx, msgs[0], p.tried)
	}
	if len(q.waiting) >= mostWaiting || q.bytes >= mostWaitingBytes {
		q.mu.Unlock()
		return ErrBusy
	}
	done := make(chan error, len(msgs))
	for _, m := range msgs {
		q.waiting = append(q.waiting, &item{ctx, m, done})
		q.bytes += len(m.Data)
	}
	p.send()
	q.mu.Unlock()
	for range msgs {
		select {
		case err := <-done:
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return fmt.Errorf("publishing: %w (last answer: %w)", ctx.Err(), p.lastAnswer())
		}
	}
	return nil
}

func (p *Publisher) lastAnswer() error {
	if err := p.Refused(); err != nil {
		return err
	}
	return errors.New("none")
}

// tried gives back the place of a message that was sent by itself.
func (p *Publisher) tried() {
	p.queue.mu.Lock()
	defer p.queue.mu.Unlock()
	p.queue.singles--
	p.send()
}

// send sends what can be sent now. The queue is locked.
func (p *Publisher) send() {
	q := &p.queue
	singles, group := p.limits()
	for !q.grouping && len(q.waiting) > 0 {
		single := p.mode == PublishAuto && q.pace.isSingle(time.Now())
		if !single && len(q.waiting) >= group {
			how := PublishGroup
			if p.mode == PublishAuto {
				how = q.pace.next(time.Now())
			}
			most := mostGroup
			if how == PublishSingle {
				most = sampleSingles
			}
			if items := q.take(most); len(items) > 0 {
				q.grouping = true
				go p.round(how, items)
			}
			continue
		}
		if !single && q.singles >= singles {
			p.ask()
			return
		}
		for _, i := range q.take(1) {
			q.singles++
			go p.alone(i)
		}
	}
}

// ask learns the stream's configuration as soon as anything waits: too few for a group
// may wait for ever, on a stream where nothing need wait. The queue is locked.
func (p *Publisher) ask() {
	q := &p.queue
	if p.mode != PublishAuto || q.asking || q.pace.asked(time.Now()) {
		return
	}
	q.asking = true
	go func() {
		p.groupable()
		q.mu.Lock()
		defer q.mu.Unlock()
		q.asking = false
		p.send()
	}()
}

// take takes up to n messages out of the queue, and drops those whose request has
// ended before they were sent.
func (q *queue) take(n int) []*item {
	var items []*item
	size, taken := 0, 0
	for _, i := range q.waiting {
		if len(items) == n || len(items) > 0 && size+len(i.msg.Data) > mostGroupBytes {
			break
		}
		q.waiting[taken] = nil
		taken++
		q.bytes -= len(i.msg.Data)
		if err := i.ctx.Err(); err != nil {
			i.done <- err
			continue
		}
		items = append(items, i)
		size += len(i.msg.Data)
	}
	q.waiting = q.waiting[taken:]
	if len(q.waiting) == 0 {
		q.waiting = nil // and with it a large array
	}
	return items
}

func (p *Publisher) alone(i *item) { i.done <- p.publish(i.ctx, i.msg, p.tried) }

// round sends a group, or the same one by one to see how long that takes.
func (p *Publisher) round(how PublishMode, items []*item) {
	if p.mode == PublishAuto && !p.groupable() {
		p.separately(items)
		p.ended(nil)
		return
	}
	start := time.Now()
	sample := func(ok bool) func(*pace) {
		if !ok {
			return nil
		}
		now := time.Now()
		return func(c *pace) { c.add(how, now.Sub(start)/time.Duration(len(items)), now) }
	}
	if how == PublishSingle {
		p.ended(sample(p.sample(items)))
		return
	}
	err := p.publishBatch(items)
	if err == nil {
		for _, i := range items {
			i.done <- nil
		}
		p.ended(sample(true))
		return
	}
	// The answer is about the group. Each message by itself learns its own: a duplicate
	// among them refuses them all, and an answer that was lost tells nothing.
	p.separately(items)
	p.ended(func(c *pace) {
		if atomicRefused(err) {
			c.single(time.Now(), configHolds)
		}
	})
}

func (p *Publisher) ended(learn func(*pace)) {
	p.queue.mu.Lock()
	defer p.queue.mu.Unlock()
	if learn != nil {
		learn(&p.queue.pace)
	}
	p.queue.grouping, p.queue.crowd = false, time.Now()
	p.send()
}

func (p *Publisher) separately(items []*item) {
	p.queue.mu.Lock()
	p.queue.singles += len(items)
	p.queue.mu.Unlock()
	for _, i := range items {
		go p.alone(i)
	}
}

// sample sends messages one by one, all at once, and waits for the first try of each.
func (p *Publisher) sample(items []*item) (ok bool) {
	var firsts sync.WaitGroup
	firsts.Add(len(items))
	p.queue.mu.Lock()
	p.queue.singles += len(items)
	p.queue.mu.Unlock()
	for _, i := range items {
		go func() { i.done <- p.publish(i.ctx, i.msg, func() { p.tried(); firsts.Done() }) }()
	}
	firsts.Wait()
	return p.Refused() == nil
}

// publishBatch stores a group, all or nothing. Of the same id twice one is sent.
func (p *Publisher) publishBatch(items []*item) error {
	group := make([]*envelope, 0, len(items))
	defer func() {
		for _, e := range group {
			e.free()
		}
	}()
	seen := make(map[string]struct{}, len(items))
	for _, i := range items {
		if _, ok := seen[i.msg.ID]; ok {
			continue
		}
		seen[i.msg.ID] = struct{}{}
		group = append(group, seal(i.msg))
	}
	if len(group) < 2 {
		return errNoGroup
	}
	// A request that ends meanwhile does not call the others back.
	start := time.Now()
	err := p.requestGroup(group, publishTry)
	p.tookGroup.Observe(time.Since(start).Seconds())
	if err == nil {
		p.grouped.Observe(float64(len(group)))
		p.stored.Store(time.Now().UnixNano())
		p.refused.Store(nil)
	}
	return err
}

var errNoGroup = errors.New("one message is no group")

// atomicRefused says whether the stream or the server takes no group at all.
func atomicRefused(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == jetstreamext.JSErrCodeBatchPublishNotEnabled
}

// groupable asks, once in a while, whether the stream takes groups and is faster
// with them. A stream with replicas writes many messages with one fsync by itself:
// 256 callers store 11,000 a second one by one, and 9,600 in groups.
func (p *Publisher) groupable() bool {
	q := &p.queue
	q.mu.Lock()
	known := q.pace.asked(time.Now())
	q.mu.Unlock()
	if known {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), publishTry)
	defer cancel()
	s, err := p.js.Stream(ctx, contracts.StreamWebhooks)
	if err != nil {
		return false // now; the next group asks again
	}
	c := s.CachedInfo().Config
	ok := c.AllowAtomicPublish && c.Replicas <= 1
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pace.config(time.Now(), ok)
	return ok
}
