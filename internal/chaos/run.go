package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"leadpipe/internal/bus"
)

// Options say how a run goes.
type Options struct {
	Seed   uint64
	Conf   string        // nats.conf
	Dir    string        // for logs and stores; it is removed after a run without violations
	People int           // in the story
	Length time.Duration // of traffic and blows
	Every  time.Duration // between two blows, on average
	Wait   time.Duration // how long all may take to come to rest
	// Hurry shortens what a run would otherwise wait for after a kill: the server gives
	// messages of the dead to others after 2 s in place of 30, and calls to Twilio and
	// the leases of texts are shorter, and the spreadsheet's writer may be another at once.
	Hurry bool
	Out   io.Writer // progress; nil: none
}

// A Result is what a run came to.
type Result struct {
	Seed       uint64
	Blows      int
	Webhooks   int // that were acknowledged, statuses not counted
	Answers    map[int]int
	Texts      int
	Took       time.Duration
	Violations []Violation
	Dir        string // logs, plan and report; empty: there was nothing to keep
}

// Count is how many violations there are of a kind.
func (r Result) Count(kind string) (n int) {
	for _, v := range r.Violations {
		if v.Kind == kind {
			n++
		}
	}
	return n
}

// String is one line of a table of runs.
func (r Result) String() string {
	return fmt.Sprintf("seed %d: %d webhooks acknowledged, %d blows, %d texts: %d lost, %d twice, %d wrong, %d after STOP (%s; answers %v)", r.Seed, r.Webhooks, r.Blows, r.Texts,
		r.Count(lost), r.Count(twice), r.Count(wrong), r.Count(afterStop), r.Took.Round(time.Second), r.Answers)
}

// Report is what a person needs who looks for the cause.
func (r Result) Report() string {
	var b strings.Builder
	for i, v := range r.Violations {
		if i == 20 {
			fmt.Fprintf(&b, "and %d more\n", len(r.Violations)-i)
			break
		}
		fmt.Fprintf(&b, "%s: %s\n", strings.ToUpper(v.Kind), v.What)
		for _, line := range v.About {
			fmt.Fprintf(&b, "    %s\n", line)
		}
	}
	return b.String()
}

// Run runs the pipeline through one plan and compares. An error means that there was no
// run to compare; violations are in the result.
func Run(ctx context.Context, o Options) (Result, error) {
	begin := time.Now()
	p := newPlan(o.Seed, o.People, o.Length, o.Every, longestFreeze(o), begin)
	r := Result{Seed: o.Seed, Blows: len(p.blows), Dir: o.Dir}
	if o.Out == nil {
		o.Out = io.Discard
	}
	if err := p.write(filepath.Join(o.Dir, "plan.txt"), o.Seed); err != nil {
		return r, err
	}
	s := settings{dir: o.Dir, conf: o.Conf, nodes: 1, seed: o.Seed, rate: 0.1, unreachable: p.unreachable}
	if o.Hurry {
		s.call = 1500 * time.Millisecond
	}
	w, err := newWorld(ctx, s)
	defer w.close()
	if err != nil {
		return r, err
	}
	if o.Hurry {
		if err := w.quickRedelivery(ctx, 2*time.Second); err != nil {
			return r, err
		}
	}
	for _, who := range p.people {
		w.meta.AddLead(who.form)
	}
	fmt.Fprintf(o.Out, "seed %d: %d people, %d webhooks, %d blows within %s; logs in %s\n", o.Seed, len(p.people), len(p.deliveries), len(p.blows), o.Length, o.Dir)
	send := newSender(w)
	w.faulty.Store(true)
	start := time.Now()
	sending, cancel := context.WithTimeout(ctx, o.Length+o.Wait)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { w.hit(p.blows, start, o.Out) })
	sent := make(chan error, 1)
	go func() { sent <- send.send(sending, p, start) }()
	wg.Wait()
	if err := sleep(ctx, time.Until(start.Add(o.Length))); err != nil {
		return r, err
	}
	w.faulty.Store(false)
	if o.Hurry { // the spreadsheet's writer, should it be dead, is not waited for
		if err := patiently(ctx, w.unpin); err != nil {
			return r, err
		}
	}
	never := <-sent
	fmt.Fprintf(o.Out, "%s: all webhooks are sent, all programs run, providers are well; waiting until it is quiet\n", time.Since(start).Round(time.Second))
	resting, stop := context.WithTimeout(ctx, o.Wait)
	defer stop()
	r.Violations, err = w.rest(resting, p, send.ledger, o.Out)
	if never != nil {
		r.Violations = append(r.Violations, Violation{Kind: lost, What: never.Error()})
	}
	if err != nil {
		r.Violations = append(r.Violations, Violation{Kind: wrong, What: err.Error()})
	}
	before := len(w.faults())
	w.end()
	for _, what := range w.faults()[before:] {
		r.Violations = append(r.Violations, Violation{Kind: wrong, What: what})
	}
	r.Answers, _ = send.ledger.summary()
	r.Webhooks, r.Texts, r.Took = len(send.ledger.acked), len(w.twilio.Messages()), time.Since(begin)
	if len(r.Violations) == 0 {
		r.Dir = ""
		return r, os.RemoveAll(o.Dir)
	}
	return r, os.WriteFile(filepath.Join(o.Dir, "report.txt"), []byte(r.Report()), 0o600)
}

// longestFreeze is longer than a lease: a sender wakes up to find that others went on.
func longestFreeze(o Options) time.Duration {
	if o.Hurry {
		return 6 * time.Second
	}
	return 40 * time.Second
}

// hit strikes the blows at their moments, and returns when all that was hit runs again.
func (w *world) hit(blows []blow, start time.Time, out io.Writer) {
	var wg sync.WaitGroup
	for _, b := range blows {
		time.Sleep(time.Until(start.Add(b.at)))
		fmt.Fprintln(out, b)
		names := []string{b.target}
		if b.target == "all" {
			names = w.names
		}
		for _, name := range names {
			wg.Go(func() { w.strike(w.procs[name], b) })
		}
	}
	wg.Wait()
}

func (w *world) strike(p *process, b blow) {
	switch b.what {
	case "freeze":
		p.freeze(b.down)
		return
	case "term":
		p.terminate()
	default:
		p.kill()
	}
	time.Sleep(b.down)
	if err := p.start(); err != nil {
		w.fault(p.name, err.Error())
	}
}

// rest waits until nothing is left to do and nothing is to complain about, or until there
// is a complaint that no time mends, or until time is up; and gives the complaints.
func (w *world) rest(ctx context.Context, p *plan, l *ledger, out io.Writer) (found []Violation, err error) {
	for said := time.Now(); ; {
		if len(w.faults()) > 0 || quiet(ctx, w) { // a program that ended by itself will not come to rest
			look, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
			found, err = check(look, w, p, l)
			cancel()
			if err == nil && (len(found) == 0 || final(found) || len(w.faults()) > 0) {
				return found, nil
			}
		}
		if time.Since(said) > 5*time.Second {
			said = time.Now()
			fmt.Fprintln(out, "waiting:", w.busy(), first(found))
		}
		if sleep(ctx, 300*time.Millisecond) != nil {
			break
		}
	}
	if err == nil && len(found) == 0 { // it never came so far that one could compare
		err = errors.New("the pipeline does not come to rest: " + w.busy())
	}
	return found, err
}

func first(found []Violation) string {
	if len(found) == 0 {
		return ""
	}
	return found[0].What
}

// final says whether a complaint is of a kind that no waiting mends.
func final(found []Violation) bool {
	for _, v := range found {
		if v.Kind == afterStop || v.Kind == twice {
			return true
		}
	}
	return false
}

// quiet says whether every durable has handled all there is.
func quiet(ctx context.Context, w *world) bool {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	for _, d := range durables {
		if settled, err := bus.Settled(ctx, w.js, d[0], d[1]); err != nil || !settled {
			return false
		}
	}
	return true
}

// busy says which durables are at work.
func (w *world) busy() string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var out []string
	for _, d := range durables {
		c, err := w.js.Consumer(ctx, d[0], d[1])
		if err != nil {
			out = append(out, d[1]+": "+err.Error())
			continue
		}
		if i := c.CachedInfo(); i.NumPending > 0 || i.NumAckPending > 0 {
			out = append(out, fmt.Sprintf("%s has %d pending, %d unacknowledged", d[1], i.NumPending, i.NumAckPending))
		}
	}
	return strings.Join(out, "; ")
}

func (p *plan) unreachable(phone string) bool {
	for _, who := range p.people {
		if who.phone == phone {
			return who.unreachable
		}
	}
	return false
}

// write keeps the plan for whoever reads the logs.
func (p *plan) write(file string, seed uint64) error {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d\n\n", seed)
	for _, blow := range p.blows {
		fmt.Fprintln(&b, blow)
	}
	b.WriteString("\n")
	for _, d := range p.deliveries {
		fmt.Fprintf(&b, "%7.2fs %s %s", d.at.Seconds(), d.what, strings.Join(d.ids, " "))
		if d.again > 0 {
			fmt.Fprintf(&b, ", again at %.2fs", d.again.Seconds())
		}
		b.WriteString("\n")
	}
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("writing the plan: %w", err)
	}
	return nil
}
