package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"leadpipe/contracts"
	"leadpipe/internal/freeport"
	"leadpipe/internal/sandbox"
	"leadpipe/internal/sandbox/google"
	"leadpipe/internal/sandbox/meta"
	"leadpipe/internal/sandbox/twilio"
	"leadpipe/internal/serverconf"
)

// settings say what a world is made of.
type settings struct {
	dir   string // for logs, stores and the credentials file
	conf  string // nats.conf
	nodes int    // servers: 1 or 3
	seed  uint64 // of the stand-ins
	call  time.Duration
	// rate is the share of calls to providers that go wrong.
	rate     float64
	edgeAddr string // "": a free port
	console  string // where a console is; "": none
	// unreachable says whose texts the carrier does not deliver.
	unreachable func(phone string) bool
}

// A world is the whole pipeline in processes, and the stand-ins.
type world struct {
	settings
	edgeURL string
	servers []serverconf.Node
	js      jetstream.JetStream // the operator's
	meta    *meta.Server
	twilio  *twilio.Server
	google  *google.Server
	names   []string // processes, in the order of their start
	procs   map[string]*process

	faulty atomic.Bool // providers go wrong
	mu     sync.Mutex
	rng    *rand.Rand
	told   []string // what went wrong with programs
	stop   []func()
}

// the work of each consumers process. Opt-outs are alone, so that they lag when theirs is
// down; everything else has two.
var work = []string{"optouts", "billing leads sms", "sms sheets blacklist", "leads billing sheets"}

// newWorld starts everything and waits until a webhook can be taken and all durables are
// there. Close it, also after an error.
func newWorld(ctx context.Context, s settings) (*world, error) {
	w := &world{settings: s, procs: map[string]*process{}, rng: rand.New(rand.NewPCG(s.seed, 3))}
	return w, w.begin(ctx)
}

func (w *world) begin(ctx context.Context) (err error) {
	if w.servers, err = serverconf.Write(w.conf, w.dir, w.nodes); err != nil {
		return err
	}
	if w.edgeAddr == "" {
		port, err := freeport.Port()
		if err != nil {
			return err
		}
		w.edgeAddr = fmt.Sprint("127.0.0.1:", port)
	}
	w.edgeURL = "http://" + w.edgeAddr
	urls, err := w.vendors()
	if err != nil {
		return err
	}
	credentials := filepath.Join(w.dir, "service-account.json")
	key, err := w.google.CredentialsJSON(urls[2])
	if err != nil {
		return err
	}
	if err := os.WriteFile(credentials, key, 0o600); err != nil {
		return fmt.Errorf("writing the stand-in's credentials: %w", err)
	}
	for _, n := range w.servers {
		w.add(&process{name: n.Name, program: "nats-server", args: []string{"-c", n.Conf}, env: serverconf.Passwords})
	}
	common := append(slices.Clone(serverconf.Passwords), "PUBLIC_URL="+w.edgeURL, fmt.Sprint("STREAM_REPLICAS=", len(w.servers)),
		"FACEBOOK_APP_SECRET="+sandbox.AppSecret, "TWILIO_ACCOUNT_SID="+sandbox.TwilioAccount, "TWILIO_AUTH_TOKEN="+sandbox.TwilioToken)
	edge := append(slices.Clone(common), "EDGE_ADDR="+w.edgeAddr, "NATS_URL="+serverconf.URL(w.servers, "edge"),
		"STRIPE_WEBHOOK_SECRET="+sandbox.StripeSecret, "FACEBOOK_VERIFY_TOKEN="+sandbox.VerifyToken)
	if len(w.servers) > 1 { // as docs/operate.md recommends
		edge = append(edge, "PUBLISH_TIMEOUT=12s")
	}
	w.add(&process{name: "edge", program: "edge", env: edge})
	for i, durables := range work {
		env := append(slices.Clone(common), "NATS_URL="+serverconf.URL(w.servers, "consumers"), "METRICS_ADDR=127.0.0.1:0", "CONSOLE_ADDR=",
			"FACEBOOK_PAGE_ACCESS_TOKEN="+sandbox.PageToken, "FACEBOOK_GRAPH_URL="+urls[0]+"/v26.0",
			"TWILIO_MESSAGING_SERVICE_SID="+sandbox.TwilioService, "TWILIO_API_URL="+urls[1], "TWILIO_CONSENT=true",
			"GOOGLE_SHEETS_ID="+sandbox.SheetID, "GOOGLE_APPLICATION_CREDENTIALS="+credentials, "GOOGLE_SHEETS_URL="+urls[2],
			"GOOGLE_SHEETS_READS_PER_MINUTE=600", "GOOGLE_SHEETS_WRITES_PER_MINUTE=600", "GOOGLE_SHEETS_GATHER=100ms",
			"SMS_WELCOME_TEXT="+welcomeText, "SMS_PAYMENT_FAILED_TEXT="+failedText, "SMS_OPTOUT_TEXT="+stoppedText)
		if w.call > 0 {
			env = append(env, fmt.Sprint(envCallTime, "=", w.call))
		}
		if i == 0 && w.console != "" {
			env = append(env, "CONSOLE_ADDR="+w.console)
		}
		w.add(&process{name: fmt.Sprint("consumers-", i+1), program: "consumers", args: strings.Fields(durables), env: env})
	}
	for _, name := range w.names {
		if err := w.procs[name].start(); err != nil {
			return err
		}
	}
	if err := w.connect(); err != nil {
		return err
	}
	return w.ready(ctx)
}

func (w *world) add(p *process) {
	p.dir, p.fault = w.dir, w.fault
	w.names = append(w.names, p.name)
	w.procs[p.name] = p
}

// fault notes what a program did of its own accord.
func (w *world) fault(name, what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told = append(w.told, name+" "+what)
}

func (w *world) faults() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.told)
}

// chance is true in that share of calls, as long as providers go wrong.
func (w *world) chance() (rng func(int) int, bad bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	bad = w.faulty.Load() && w.rng.Float64() < w.rate
	return w.draw, bad
}

func (w *world) draw(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rng.IntN(n)
}

// oneOf draws a fault, or none.
func oneOf[F ~string](w *world, faults ...F) F {
	draw, bad := w.chance()
	if !bad {
		return ""
	}
	return faults[draw(len(faults))]
}

// vendors starts Meta, Twilio and Google, and gives their URLs in that order.
func (w *world) vendors() (urls [3]string, err error) {
	w.meta, err = meta.New(meta.Options{Token: sandbox.PageToken, AppSecret: sandbox.AppSecret, MinLatency: 5 * time.Millisecond, MaxLatency: 100 * time.Millisecond,
		Seed: w.seed, Fault: func(meta.Call) meta.Fault {
			faults := []meta.Fault{meta.Temporary, meta.HTML500, meta.HTML503, meta.HangUp}
			if w.call == 0 && w.draw(50) == 0 { // a limit holds all leads up for a minute, for which a hurried run has no time
				return oneOf(w, meta.UserLimit)
			}
			return oneOf(w, faults...)
		}})
	if err != nil {
		return urls, err
	}
	w.twilio, err = twilio.New(twilio.Options{AccountSID: sandbox.TwilioAccount, AuthToken: sandbox.TwilioToken, InboundURL: w.edgeURL + "/api/webhooks/sms",
		MinLatency: 5 * time.Millisecond, MaxLatency: 300 * time.Millisecond, StepDelay: 20 * time.Millisecond, ShuffleCallbacks: true, DuplicateCallbacks: true,
		Undelivered: func(to string) int {
			if w.unreachable != nil && w.unreachable(to) {
				return 30003
			}
			return 0
		},
		Fault: func(c twilio.Call) twilio.Fault {
			if c.Op == twilio.Send {
				return oneOf(w, twilio.Faults()...)
			}
			return oneOf(w, twilio.HangUpBefore, twilio.Error503Before, twilio.TooMany)
		}})
	if err != nil {
		return urls, err
	}
	w.stop = append(w.stop, func() { _ = w.twilio.Close() })
	w.google, err = google.New(google.Options{Spreadsheets: []string{sandbox.SheetID}, ReadsPerMinute: 600, WritesPerMinute: 600,
		MinLatency: 5 * time.Millisecond, MaxLatency: 60 * time.Millisecond, Seed: w.seed, Fault: func(string, int) google.Fault {
			return oneOf(w, google.TooManyRequests, google.Internal, google.Unavailable, google.BadGateway, google.DropBefore, google.DropAfter, google.TimeoutAfter)
		}})
	if err != nil {
		return urls, err
	}
	for i, h := range []http.Handler{w.meta, w.twilio, w.google} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return urls, fmt.Errorf("listening: %w", err)
		}
		srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
		go func() { _ = srv.Serve(l) }() // ends with close
		w.stop = append(w.stop, func() { _ = srv.Close() })
		urls[i] = "http://" + l.Addr().String()
	}
	return urls, nil
}

func (w *world) connect() error {
	nc, err := nats.Connect(serverconf.URL(w.servers, "operator"), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.RetryOnFailedConnect(true))
	if err != nil {
		return fmt.Errorf("connecting to NATS: %w", err)
	}
	w.stop = append(w.stop, nc.Close)
	if w.js, err = jetstream.New(nc); err != nil {
		return fmt.Errorf("setting up JetStream: %w", err)
	}
	return nil
}

// durables are all that there are, with their streams.
var durables = [][2]string{
	{contracts.StreamWebhooks, contracts.Billing}, {contracts.StreamWebhooks, contracts.Leads}, {contracts.StreamWebhooks, contracts.Optouts},
	{contracts.StreamCRM, contracts.SMSSender}, {contracts.StreamCRM, contracts.Blacklist}, {contracts.StreamCRM, contracts.Sheets},
}

// lookTime is how long one look at the pipeline may take, before the next one.
const lookTime = 3 * time.Second

// patiently looks again and again, since requests get lost while a server starts or a
// leader is chosen, until one look is content; or until two minutes have passed, and then
// gives the last error.
func patiently(ctx context.Context, look func(context.Context) error) error {
	for deadline := time.Now().Add(2 * time.Minute); ; {
		try, stop := context.WithTimeout(ctx, lookTime)
		err := look(try)
		stop()
		if err == nil || ctx.Err() != nil || time.Now().After(deadline) {
			return err
		}
		if sleep(ctx, 50*time.Millisecond) != nil {
			return err
		}
	}
}

func (w *world) ready(ctx context.Context) error {
	err := patiently(ctx, func(ctx context.Context) error {
		if len(w.faults()) > 0 {
			return nil
		}
		return w.lacks(ctx)
	})
	if told := w.faults(); len(told) > 0 {
		return errors.New(told[0])
	}
	return err
}

// lacks says what keeps the pipeline from taking a webhook, or from handling it.
func (w *world) lacks(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.edgeURL+"/readyz", nil)
	if err != nil {
		return fmt.Errorf("asking the edge: %w", err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("asking the edge: %w", err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("the edge's readiness is %d", res.StatusCode)
	}
	for _, d := range durables {
		if _, err := w.js.Consumer(ctx, d[0], d[1]); err != nil {
			return fmt.Errorf("looking for the durable %s: %w", d[1], err)
		}
	}
	return nil
}

// quickRedelivery has the server give a dead process's messages to others soon.
func (w *world) quickRedelivery(ctx context.Context, after time.Duration) error {
	for _, d := range durables {
		err := patiently(ctx, func(ctx context.Context) error {
			c, err := w.js.Consumer(ctx, d[0], d[1])
			if err != nil {
				return fmt.Errorf("looking for the durable %s: %w", d[1], err)
			}
			config := c.CachedInfo().Config
			config.AckWait = after
			if _, err := w.js.UpdateConsumer(ctx, d[0], config); err != nil {
				return fmt.Errorf("changing the durable %s: %w", d[1], err)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// unpin lets another process be the spreadsheet's writer.
func (w *world) unpin(ctx context.Context) error {
	s, err := w.js.Stream(ctx, contracts.StreamCRM)
	if err != nil {
		return fmt.Errorf("looking for the stream %s: %w", contracts.StreamCRM, err)
	}
	if err := s.UnpinConsumer(ctx, contracts.Sheets, contracts.Sheets); err != nil {
		return fmt.Errorf("letting go of the spreadsheet's writer: %w", err)
	}
	return nil
}

// end asks every program to end, the last started first, and waits.
func (w *world) end() {
	for _, name := range slices.Backward(w.names) {
		w.procs[name].terminate()
	}
}

// close ends what still runs, by force, and the stand-ins.
func (w *world) close() {
	for _, p := range w.procs {
		p.kill()
	}
	for _, f := range slices.Backward(w.stop) {
		f()
	}
}
