// Package sandbox is the whole pipeline on one machine: a NATS server, the real edge
// and the real consumers, and stand-ins for Stripe, Meta, Twilio and Google (its
// subpackages) in place of the world. `make demo` tells one person's story with it
// (demo.go), `make run` keeps it running behind a page (page.go). It is never needed
// in production.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"leadpipe/internal/bus/inproc"
	"leadpipe/internal/daemon"
	"leadpipe/internal/daemon/consumersd"
	"leadpipe/internal/daemon/edged"
	"leadpipe/internal/freeport"
	"leadpipe/internal/sandbox/google"
	"leadpipe/internal/sandbox/meta"
	"leadpipe/internal/sandbox/twilio"
	"leadpipe/streams"
)

// The accounts at the stand-ins, as in README.md. They open nothing anywhere else.
const (
	StripeSecret  = "whsec_test"
	AppSecret     = "app_secret"
	VerifyToken   = "verify_me"
	PageToken     = "page_token"
	TwilioAccount = "AC00000000000000000000000000000001"
	TwilioToken   = "twilioToken"
	TwilioService = "MG00000000000000000000000000000001"
	SheetID       = "sandbox-sheet"
)

// Options say how a sandbox runs.
type Options struct {
	Dir       string        // for the NATS store and the credentials file
	NATSConf  string        // nats.conf
	NATSPort  int           // -1: a free one
	EdgeAddr  string        // where the edge listens; port 0: a free one
	Without   []string      // durables that are not run, to see what is missing then
	Latency   time.Duration // of every call to a stand-in; 0: 50 to 150 ms
	StepDelay time.Duration // how long a text takes from each status to the next
	Hurry     bool          // ten times Google's quota, and writes to the sheet at once: for who waits
	Log       *slog.Logger

	// Consumers and Phones change what the consumers' environment says and how the
	// stand-in for Twilio behaves. nil: as they are.
	Consumers func(*consumersd.Config)
	Phones    func(*twilio.Options)
}

// A Sandbox is a running pipeline. Close it.
type Sandbox struct {
	EdgeURL string
	NATS    *inproc.Server
	JS      jetstream.JetStream // the operator's
	Meta    *meta.Server
	Twilio  *twilio.Server
	Google  *google.Server
	Wait    time.Duration // how long Demo waits for an effect

	consumers  []*program // one a durable
	vendorList []*vendor  // Meta, Twilio, Google
	people     people
	deliveries deliveries

	stop    []func() error // last in, first out
	failed  chan error     // a program of the pipeline that ended by itself
	closing sync.Once
}

// Start starts everything and waits until the edge can take a webhook.
func Start(ctx context.Context, o Options) (*Sandbox, error) {
	s := &Sandbox{Wait: 20 * time.Second, failed: make(chan error, 2)}
	if err := s.start(ctx, o); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Sandbox) start(ctx context.Context, o Options) (err error) {
	if s.NATS, err = inproc.Start(ctx, inproc.Options{ConfigFile: o.NATSConf, StoreDir: filepath.Join(o.Dir, "nats"), Port: o.NATSPort}); err != nil {
		return err
	}
	s.onStop(func() error { s.NATS.Stop(); return nil })
	nc, err := nats.Connect(s.NATS.URL(), s.NATS.InProcess("operator")...)
	if err != nil {
		return fmt.Errorf("connecting to NATS: %w", err)
	}
	s.onStop(func() error { nc.Close(); return nil })
	if s.JS, err = jetstream.New(nc); err != nil {
		return fmt.Errorf("setting up JetStream: %w", err)
	}
	if _, err := streams.Apply(ctx, s.JS, 1); err != nil {
		return err
	}

	addr, err := freeAddr(o.EdgeAddr)
	if err != nil {
		return err
	}
	s.EdgeURL = "http://" + addr
	graphURL, twilioURL, googleURL, err := s.vendors([3]string{}, o)
	if err != nil {
		return err
	}
	credentials := filepath.Join(o.Dir, "service-account.json")
	if err := s.writeCredentials(credentials, googleURL); err != nil {
		return err
	}

	consumers, err := consumersConfig(s.EdgeURL, s.NATS.UserURL("consumers"), graphURL, twilioURL, googleURL, credentials)
	if err != nil {
		return err
	}
	if o.Consumers != nil {
		o.Consumers(&consumers)
	}
	if o.Hurry {
		consumers.SheetsReads, consumers.SheetsWrites, consumers.SheetsGather = 600, 600, 100*time.Millisecond
	}
	// Each durable runs by itself, as in processes of their own, so that one can be stopped.
	for _, name := range consumersd.Without(o.Without...) {
		p := &program{name: name, run: func(ctx context.Context) error {
			return consumersd.Run(ctx, consumers, []string{name}, o.Log.With("program", "consumers "+name))
		}}
		s.consumers = append(s.consumers, p)
		p.start(s.failed)
	}
	s.onStop(func() error {
		errs := make([]error, len(s.consumers))
		var wg sync.WaitGroup
		for i, p := range s.consumers {
			wg.Go(func() { errs[i] = p.stop() })
		}
		wg.Wait()
		return errors.Join(errs...)
	})
	s.run(ctx, "edge", func(ctx context.Context) error {
		return edged.Run(ctx, edged.Config{
			Addr: addr, PublicURL: s.EdgeURL, NATS: daemon.NATS{URL: s.NATS.UserURL("edge"), Replicas: 1},
			StripeSecrets: daemon.Secrets{StripeSecret}, StripeTolerance: 5 * time.Minute, PublishTimeout: 8 * time.Second,
			FacebookSecrets: daemon.Secrets{AppSecret}, FacebookVerify: VerifyToken,
			TwilioAccount: TwilioAccount, TwilioTokens: daemon.Secrets{TwilioToken}, Region: "FR",
		}, nil, o.Log.With("program", "edge"))
	})
	return s.ready(ctx)
}

// consumersConfig is what an operator would put into the environment.
func consumersConfig(public, natsURL, graphURL, twilioURL, googleURL, credentials string) (consumersd.Config, error) {
	cfg, err := daemon.Defaults[consumersd.Config]()
	if err != nil {
		return cfg, err
	}
	cfg.URL, cfg.PublicURL, cfg.Metrics, cfg.ConsoleAddr = natsURL, public, "127.0.0.1:0", "" // the sandbox has a page of its own
	cfg.FacebookSecrets, cfg.FacebookToken, cfg.GraphURL = daemon.Secrets{AppSecret}, PageToken, graphURL
	cfg.TwilioAccount, cfg.TwilioTokens, cfg.TwilioService = TwilioAccount, daemon.Secrets{TwilioToken}, TwilioService
	cfg.TwilioURL, cfg.TwilioConsent = twilioURL, true
	cfg.SheetsID, cfg.SheetsCredentials, cfg.SheetsURL = SheetID, credentials, googleURL
	return cfg, nil
}

// vendors starts the stand-ins and gives their base URLs. addrs are where they listen,
// in the order Meta, Twilio, Google; "" is a free port.
func (s *Sandbox) vendors(addrs [3]string, o Options) (graphURL, twilioURL, googleURL string, err error) {
	least, most := o.Latency, o.Latency
	if o.Latency == 0 {
		least, most = 50*time.Millisecond, 150*time.Millisecond
	}
	quota := 60
	if o.Hurry {
		quota = 600
	}
	if s.Meta, err = meta.New(meta.Options{Token: PageToken, AppSecret: AppSecret, MinLatency: least, MaxLatency: most}); err != nil {
		return "", "", "", err
	}
	phones := twilio.Options{AccountSID: TwilioAccount, AuthToken: TwilioToken, InboundURL: s.EdgeURL + "/api/webhooks/sms", StepDelay: o.StepDelay,
		MinLatency: least, MaxLatency: most}
	if o.Phones != nil {
		o.Phones(&phones)
	}
	if s.Twilio, err = twilio.New(phones); err != nil {
		return "", "", "", err
	}
	if s.Google, err = google.New(google.Options{Spreadsheets: []string{SheetID}, ReadsPerMinute: quota, WritesPerMinute: quota,
		MinLatency: least, MaxLatency: most}); err != nil {
		return "", "", "", err
	}
	s.onStop(s.Twilio.Close)
	urls := [3]string{}
	for i, v := range []*vendor{{name: "Meta", h: s.Meta}, {name: "Twilio", h: s.Twilio}, {name: "Google", h: s.Google}} {
		if v.addr = addrs[i]; v.addr == "" {
			if v.addr, err = freeAddr("127.0.0.1:0"); err != nil {
				return "", "", "", err
			}
		}
		if err := v.up(); err != nil {
			return "", "", "", err
		}
		s.onStop(v.down)
		s.vendorList, urls[i] = append(s.vendorList, v), "http://"+v.addr
	}
	return urls[0] + "/v26.0", urls[1], urls[2], nil
}

// Vendors starts the stand-ins alone, where README.md expects them, for an edge and
// consumers that are started by hand. The service account's file goes to credentials.
func Vendors(credentials string) (*Sandbox, error) {
	s := &Sandbox{EdgeURL: "http://localhost:3000", failed: make(chan error, 1)}
	_, _, googleURL, err := s.vendors([3]string{"127.0.0.1:3002", "127.0.0.1:3003", "127.0.0.1:3004"}, Options{})
	if err == nil {
		err = s.writeCredentials(credentials, googleURL)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.AddDemoLead()
	return s, nil
}

func (s *Sandbox) writeCredentials(file, googleURL string) error {
	key, err := s.Google.CredentialsJSON(googleURL)
	if err != nil {
		return fmt.Errorf("making the stand-in's credentials: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("writing the stand-in's credentials: %w", err)
	}
	if err := os.WriteFile(file, key, 0o600); err != nil {
		return fmt.Errorf("writing the stand-in's credentials: %w", err)
	}
	return nil
}

// run runs a program of the pipeline until the sandbox closes.
func (s *Sandbox) run(ctx context.Context, name string, program func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() {
		err := program(ctx)
		if err != nil {
			err = fmt.Errorf("%s: %w", name, err)
			select {
			case s.failed <- err:
			default:
			}
		}
		ended <- err
	}()
	s.onStop(func() error { cancel(); return <-ended })
}

// Failed gives the error of a program that ended by itself.
func (s *Sandbox) Failed() <-chan error { return s.failed }

func (s *Sandbox) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.EdgeURL+"/readyz", nil)
		if err != nil {
			return fmt.Errorf("asking whether the edge is ready: %w", err)
		}
		if res, err := http.DefaultClient.Do(req); err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case err := <-s.failed:
			return err
		case <-ctx.Done():
			return fmt.Errorf("the edge is not ready after 30 s")
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *Sandbox) onStop(f func() error) { s.stop = append(s.stop, f) }

// Close drains the programs and stops the rest, the last started first.
func (s *Sandbox) Close() error {
	var errs []error
	s.closing.Do(func() {
		for i := len(s.stop) - 1; i >= 0; i-- {
			if err := s.stop[i](); err != nil && !errors.Is(err, http.ErrServerClosed) {
				errs = append(errs, err)
			}
		}
	})
	return errors.Join(errs...)
}

// freeAddr fills in a free port where the address has port 0.
func freeAddr(addr string) (string, error) {
	host, ok := strings.CutSuffix(addr, ":0")
	if !ok {
		return addr, nil
	}
	port, err := freeport.Port()
	return fmt.Sprintf("%s:%d", host, port), err
}
