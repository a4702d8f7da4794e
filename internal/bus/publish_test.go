package bus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"pgregory.net/rapid"

	"leadpipe/contracts"
	"leadpipe/internal/bus"
	"leadpipe/internal/natstest"
)

// message is one whose subject and payload name its id, so that the stream can be asked
// for it.
func message(draw, id, size int) contracts.Message {
	subject := fmt.Sprintf("d%d.%d", draw, id)
	return contracts.Message{Subject: contracts.SubjectStripe(subject), ID: "stripe:" + subject,
		Data: append([]byte(subject+" "), make([]byte, size)...)}
}

// stored is how often the stream holds each subject of a draw. A connection may have
// been lost with the server, and be on its way back.
func stored(t *testing.T, js jetstream.JetStream, draw int) map[string]uint64 {
	t.Helper()
	var found map[string]uint64
	eventually(t, "the stream tells what it holds", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		s, err := js.Stream(ctx, contracts.StreamWebhooks)
		if err != nil {
			return false
		}
		i, err := s.Info(ctx, jetstream.WithSubjectFilter(contracts.SubjectStripe(fmt.Sprintf("d%d.>", draw))))
		if err != nil {
			return false
		}
		found = i.State.Subjects
		return true
	})
	return found
}

// A history is what a test does to a publisher at once.
type history struct {
	callers    int
	ids        int           // fewer than messages: some are published several times, at once or later
	before     int           // of them stored beforehand, by somebody else
	perRequest int           // at most, as a body of Meta has
	large      bool          // some are large
	impatient  time.Duration // every fourth request ends so soon; 0: none
	mode       bus.PublishMode
	trouble    func() // in the middle
}

// runHistory publishes, and compares every nil with the stream. The truth is the
// stream's own count by subject, one subject an id, and the payload found there.
func runHistory(t *testing.T, js, edge jetstream.JetStream, draw int, h history) {
	t.Helper()
	other := bus.NewPublisherWith(edge, bus.PublishOptions{Mode: bus.PublishSingle})
	p := bus.NewPublisherWith(edge, bus.PublishOptions{Mode: h.mode})
	var prior []contracts.Message
	for id := range h.before {
		prior = append(prior, message(draw, id, 10))
	}
	if len(prior) > 0 {
		if err := other.Publish(context.Background(), prior); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	promised := map[string]contracts.Message{}
	halfway := sync.OnceFunc(func() { wg.Go(h.trouble) })
	var answered atomic.Int64
	for c := range h.callers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(draw), uint64(c)))
			for range 4 {
				var msgs []contracts.Message
				for range 1 + r.IntN(h.perRequest) {
					size := r.IntN(3000)
					if h.large && r.IntN(20) == 0 {
						size = 1 << 20
					}
					msgs = append(msgs, message(draw, r.IntN(h.ids), size))
				}
				patience, hurried := 30*time.Second, h.impatient > 0 && r.IntN(4) == 0
				if hurried {
					patience = time.Duration(r.Int64N(int64(h.impatient)))
				}
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				err := p.Publish(ctx, msgs)
				cancel()
				if err != nil && !hurried {
					t.Errorf("a patient request was refused: %v", err)
				}
				if err == nil {
					mu.Lock()
					for _, m := range msgs {
						promised[m.Subject] = m
					}
					mu.Unlock()
				}
				if answered.Add(1) == int64(h.callers) && h.trouble != nil {
					halfway()
				}
			}
		})
	}
	wg.Wait()
	found := stored(t, js, draw)
	for subject, n := range found {
		if n != 1 {
			t.Errorf("%s is stored %d times", subject, n)
		}
	}
	stream, err := js.Stream(context.Background(), contracts.StreamWebhooks)
	if err != nil {
		t.Fatal(err)
	}
	for subject, m := range promised {
		if found[subject] == 0 {
			t.Errorf("%s was promised and is not stored", subject)
			continue
		}
		var got *jetstream.RawStreamMsg
		eventually(t, "every replica has "+subject, func() bool { // a direct get may ask one that is behind
			got, err = stream.GetLastMsgForSubject(context.Background(), subject)
			return err == nil
		})
		name, _, _ := bytes.Cut(m.Data, []byte(" "))
		if !bytes.HasPrefix(got.Data, append(name, ' ')) || got.Header.Get(jetstream.MsgIDHeader) != m.ID {
			t.Errorf("%s holds something else", subject)
		}
	}
}

// Whatever is promised is stored, and once: any number of callers, ids known before or
// twice at once, requests that end, in every mode, and while the server starts again.
func TestPropertyWhatIsAcknowledgedIsStoredOnce(t *testing.T) {
	t.Parallel()
	s := natstest.New(t)
	js, edge := s.JetStream("operator"), s.JetStream("edge")
	draw := 0
	rapid.Check(t, func(rt *rapid.T) {
		draw++
		h := history{
			callers:    rapid.SampledFrom([]int{1, 2, 10, 17, 40, 100}).Draw(rt, "callers"),
			perRequest: rapid.SampledFrom([]int{1, 1, 3, 40}).Draw(rt, "per request"),
			large:      rapid.Bool().Draw(rt, "large"),
			mode:       rapid.SampledFrom([]bus.PublishMode{bus.PublishAuto, bus.PublishGroup, bus.PublishSingle}).Draw(rt, "mode"),
			impatient:  rapid.SampledFrom([]time.Duration{0, time.Millisecond, 20 * time.Millisecond}).Draw(rt, "impatient"),
		}
		h.large = h.large && h.perRequest < 10
		h.ids = rapid.SampledFrom([]int{1, 50, 100_000}).Draw(rt, "ids")
		h.before = min(h.ids, rapid.IntRange(0, 20).Draw(rt, "before"))
		if rapid.IntRange(0, 9).Draw(rt, "restart") == 0 {
			h.trouble = func() { s.Nodes[0].Stop(); s.Start(0) }
		}
		runHistory(t, js, edge, draw, h)
		if t.Failed() {
			rt.FailNow()
		}
	})
}

// The same on a cluster, in groups too, while the leader steps down and while it stops.
func TestAcknowledgedIsStoredOnceThroughAChangeOfLeader(t *testing.T) {
	t.Parallel()
	s := natstest.New(t, natstest.Cluster)
	js, edge := s.JetStream("operator"), s.JetStream("edge")
	leader := func() string {
		st, err := js.Stream(context.Background(), contracts.StreamWebhooks)
		if err != nil {
			t.Error(err)
			return ""
		}
		return st.CachedInfo().Cluster.Leader
	}
	down := func() {
		if _, err := js.Conn().Request("$JS.API.STREAM.LEADER.STEPDOWN."+contracts.StreamWebhooks, nil, 5*time.Second); err != nil {
			t.Errorf("stepping down: %v", err)
		}
	}
	kill := func() {
		name := leader()
		for i, n := range s.Nodes {
			if n.Server().Name() == name {
				n.Stop()
				s.Start(i)
				return
			}
		}
	}
	for i, trouble := range []func(){down, down, kill} {
		mode := []bus.PublishMode{bus.PublishAuto, bus.PublishGroup}[i%2]
		if i == 2 {
			mode = bus.PublishGroup
		}
		runHistory(t, js, edge, i, history{callers: 60, ids: 150, before: 10, perRequest: 3, mode: mode, trouble: trouble})
	}
}

// Callers that wait together are acknowledged together, one known id among them or not.
func TestManyCallersAreAcknowledgedInGroups(t *testing.T) {
	t.Parallel()
	s := natstest.New(t)
	reg := prometheus.NewRegistry()
	p := bus.NewPublisherWith(s.JetStream("edge"), bus.PublishOptions{Mode: bus.PublishGroup, Registerer: reg})
	msgs := make([]contracts.Message, 200)
	for i := range msgs {
		msgs[i] = message(0, i, 100)
	}
	for range 2 { // each twice in one body; the second time all are known
		if err := p.Publish(t.Context(), slices.Concat(msgs, msgs)); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(stored(t, s.JetStream("operator"), 0)); n != len(msgs) {
		t.Errorf("%d of %d stored", n, len(msgs))
	}
	if n, err := testutil.GatherAndCount(reg, "edge_publish_group_messages"); err != nil || n != 1 {
		t.Errorf("%d, %v", n, err)
	}
	fams, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fams {
		if f.GetName() == "edge_publish_group_messages" {
			if h := f.GetMetric()[0].GetHistogram(); h.GetSampleSum() != float64(len(msgs)) || h.GetSampleCount() != 1 {
				t.Errorf("%v messages in %d groups", h.GetSampleSum(), h.GetSampleCount())
			}
		}
	}
}

// silent is a connection to a server that takes everything and answers nothing to a
// publish: the stream's subjects are heard by somebody who keeps quiet.
func silent(t *testing.T) (js jetstream.JetStream, heard func() int64) {
	t.Helper()
	s := natstest.New(t, natstest.Bare)
	var n atomic.Int64
	nc := s.Connect("operator")
	if _, err := nc.Subscribe("webhooks.>", func(*nats.Msg) { n.Add(1) }); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return s.JetStream("edge"), n.Load
}

// A request that ends while it waits is not sent, and one that finds too much waiting is
// refused at once.
func TestWhatWaitsIsBoundedAndDroppedWithItsRequest(t *testing.T) {
	t.Parallel()
	js, heard := silent(t)
	p := bus.NewPublisherWith(js, bus.PublishOptions{Mode: bus.PublishGroup})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = p.Publish(ctx, []contracts.Message{message(0, 0, 10)}) })
	eventually(t, "the first is sent", func() bool { return heard() == 1 })
	const many = 9000
	msgs := make([]contracts.Message, many)
	for i := range msgs {
		msgs[i] = message(0, i+1, 10)
	}
	wg.Go(func() { _ = p.Publish(ctx, msgs) })
	eventually(t, "the next is refused", func() bool {
		short, end := context.WithTimeout(t.Context(), time.Millisecond)
		defer end()
		return errors.Is(p.Publish(short, []contracts.Message{message(1, 0, 10)}), bus.ErrBusy)
	})
	eventually(t, "a group is sent", func() bool { return heard() > 512 })
	cancel()
	wg.Wait()
	sent := heard()
	time.Sleep(1200 * time.Millisecond) // longer than a try: whatever was to come has come
	if n := heard(); n > sent+8 {
		t.Errorf("%d were sent after their request had ended", n-sent)
	}
}
