// Package twilio is a stand-in for Twilio: the messages and consents APIs, the
// block list behind them, and the webhooks that Twilio sends. It keeps every text
// in memory, refuses what Twilio refuses with Twilio's codes, and fails on demand
// in the ways that make a sender's life hard: accepted but never answered,
// answered with rubbish, blocked only afterwards.
//
// One handler serves both api.twilio.com and accounts.twilio.com, by path. Where
// Twilio's behaviour is not documented the stand-in takes the less comfortable
// reading. One simplification: the block list is kept per number, not per pair of
// number and sender.
package twilio

import (
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Options say how the stand-in behaves. Only AccountSID and AuthToken are needed;
// everything else is off, or harmless, at its zero value.
type Options struct {
	AccountSID string // "AC" and 32 hex digits
	AuthToken  string // Basic auth's password, and the key of webhook signatures

	// InboundURL is where inbound texts are sent, as the edge sees it from outside,
	// e.g. "https://hooks.example.com/api/webhooks/sms". It is what is signed.
	InboundURL string
	// DialURL replaces scheme and host of every webhook when it is dialled, not when
	// it is signed: "http://127.0.0.1:3000" for an edge behind a public name. Empty:
	// webhooks are dialled as they are named.
	DialURL string

	// Sender is the number that texts sent through a messaging service come from and
	// that inbound texts are sent to. Default "38998", a French short code.
	Sender string

	// BlockOnStop makes Twilio's default keywords (StopKeywords; the whole text, in
	// any letter case) block their sender, and START, UNSTOP and YES unblock it.
	BlockOnStop bool
	// BlockAsync accepts a text to a blocked number and fails it with 21610 in the
	// status callback, as with Advanced Opt-Out, in place of HTTP 400.
	BlockAsync bool

	// Reject refuses a text by its recipient with an HTTP status and an error code;
	// (0, 0) accepts it. It is called for well-formed numbers, once per call.
	Reject func(to string) (status, code int)
	// Undelivered gives the error code with which a text ends as undelivered, or 0.
	Undelivered func(to string) int
	// MagicNumbers gives some fictional numbers, +33 6 39 98 and four digits, a fate
	// of their own: 1211, 1408, 1608, 1610, 1612 and 1614 are refused with 21211 and
	// so on, 0429 with 20429, and 3003, 3005, 3006 and 3007 end as undelivered with
	// 30003 and so on.
	MagicNumbers bool

	// RCS says which texts Twilio delivers by RCS: they are listed under "rcs:" and the
	// number, and told of under it.
	RCS func(to string) bool
	// Trial puts what Twilio puts before the texts of a trial account.
	Trial bool
	// Redact keeps no text's words, as with message redaction.
	Redact bool

	// Status is the account's, default "active". Numbers are its numbers, and Services its
	// messaging services, of which by default there is every one.
	Status   string
	Numbers  []Number
	Services []string

	// Rate is how many sends a second are taken before HTTP 429 with 20429; Burst how
	// many at once (at least 1). 0: no limit.
	Rate  float64
	Burst int
	// ConsentsPerMinute limits consent calls; Twilio's is 100. 0: no limit.
	ConsentsPerMinute int

	// MinLatency and MaxLatency bound how long a call takes; half of it passes before
	// the call has its effect, half after.
	MinLatency, MaxLatency time.Duration
	// ListLag is how long after its acceptance a text shows up in the message list.
	ListLag time.Duration

	// Fault picks a fault for one call; nil or "" is none.
	Fault func(Call) Fault
	// FaultRate is the share of sends, 0 to 1, that meet one of Faults, where Fault
	// has not already picked one.
	FaultRate float64
	Faults    []Fault

	// StepDelay is how long each of queued, sent and delivered takes to be reached.
	StepDelay time.Duration
	// MuteCallbacks sends no status callbacks, ShuffleCallbacks sends those of a text
	// in any order once it has its final status, DuplicateCallbacks sends each twice.
	MuteCallbacks, ShuffleCallbacks, DuplicateCallbacks bool

	// Seed makes SIDs, latencies and faults repeatable. 0 takes a random seed: SIDs
	// are then new after every start, as a stream that remembers them needs.
	Seed uint64
}

// A Fault is a way for a call to go wrong. "Before" faults leave nothing behind;
// with "after" faults the text has been accepted, and goes out, all the same. A call
// that is refused anyway is answered so: an after fault does not hide it.
type Fault string

// The faults.
const (
	HangUpBefore   Fault = "hang_up_before" // the connection closes without an answer
	HangUpAfter    Fault = "hang_up_after"
	Error500Before Fault = "500_before" // with a body of HTML
	Error500After  Fault = "500_after"
	Error503Before Fault = "503_before"
	Error503After  Fault = "503_after"
	GarbageAfter   Fault = "garbage_after" // 201 with a body that is not JSON
	StallAfter     Fault = "stall_after"   // no answer until the caller gives up
	TooMany        Fault = "too_many"      // 429 with 20429, nothing left behind
)

// Faults is every fault, for drawing from.
func Faults() []Fault {
	return []Fault{HangUpBefore, HangUpAfter, Error500Before, Error500After,
		Error503Before, Error503After, GarbageAfter, StallAfter, TooMany}
}

// Leaves says whether a text that met the fault exists at Twilio all the same.
func (f Fault) Leaves() bool {
	return f == "" || strings.HasSuffix(string(f), "_after")
}

// An Op is what a call wants.
type Op string

// The operations.
const (
	Send     Op = "send"
	List     Op = "list"
	Fetch    Op = "fetch"
	Consents Op = "consents"
)

// A Call is one request to the API. Began is taken first thing, before the body is
// read and the credentials are checked, and has a monotonic reading.
type Call struct {
	Op     Op
	Began  time.Time
	To     string // of a send, or the filter of a list
	Body   string
	SID    string // the text that the send created, or ""
	Status int    // the HTTP status answered; 0: none yet, or the connection was closed
	Code   int    // Twilio's error code, or 0
	Fault  Fault
}

// A Server is the stand-in, an http.Handler. It is safe for concurrent use. Close it
// to end its status callbacks.
type Server struct {
	opt     Options
	mux     *http.ServeMux
	client  *http.Client
	sends   *rate.Limiter
	consent *rate.Limiter
	slots   chan struct{} // bounds the webhooks under way
	closing chan struct{}
	walks   sync.WaitGroup

	mu        sync.Mutex
	closed    bool
	rng       *rand.Rand
	calls     []*Call
	messages  []*Message          // all directions, oldest first
	bySID     map[string]int      // index in messages
	byTo      map[string][]int    // indexes in messages, oldest first
	blocked   map[string]struct{} // by number
	consents  []Consent
	callbacks []Callback
}

// New starts no goroutine and takes no address: serve the result with net/http. An
// error means that Options are unusable.
func New(opt Options) (*Server, error) {
	if opt.AccountSID == "" || opt.AuthToken == "" {
		return nil, errors.New("twilio stand-in: account sid and auth token must be given")
	}
	if opt.MaxLatency < opt.MinLatency {
		return nil, errors.New("twilio stand-in: latency ends before it begins")
	}
	if opt.DialURL != "" {
		if u, err := url.Parse(opt.DialURL); err != nil || u.Host == "" {
			return nil, fmt.Errorf("twilio stand-in: dial URL %q names no host", opt.DialURL)
		}
	}
	if opt.Sender == "" {
		opt.Sender = "38998"
	}
	if opt.Seed == 0 {
		opt.Seed = rand.Uint64()
	}
	s := &Server{
		opt:     opt,
		mux:     http.NewServeMux(),
		sends:   rate.NewLimiter(rate.Inf, 0),
		consent: rate.NewLimiter(rate.Inf, 0),
		slots:   make(chan struct{}, 64), // more would only queue up at the edge
		closing: make(chan struct{}),
		rng:     rand.New(rand.NewPCG(opt.Seed, 0)),
		bySID:   map[string]int{},
		byTo:    map[string][]int{},
		blocked: map[string]struct{}{},
	}
	if opt.Rate > 0 {
		s.sends = rate.NewLimiter(rate.Limit(opt.Rate), max(1, opt.Burst))
	}
	if n := opt.ConsentsPerMinute; n > 0 {
		s.consent = rate.NewLimiter(rate.Every(time.Minute/time.Duration(n)), n)
	}
	s.client = &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: cap(s.slots)},
		Timeout:   15 * time.Second, // Twilio's own patience with a webhook
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}

	const messages = "/2010-04-01/Accounts/{account}/Messages.json"
	const message = "/2010-04-01/Accounts/{account}/Messages/{file}"
	const bulk = "/v1/Consents/Bulk"
	s.mux.HandleFunc("POST "+messages, s.serve(Send, s.send))
	s.mux.HandleFunc("GET "+messages, s.serve(List, s.list))
	s.mux.HandleFunc("GET "+message, s.serve(Fetch, s.fetch))
	s.mux.HandleFunc("POST "+bulk, s.serve(Consents, s.upsertConsents))
	s.serveAccount()
	for _, path := range []string{messages, message, bulk} {
		s.mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			write(w, refuse(http.StatusMethodNotAllowed, 20004, "method not allowed"))
		})
	}
	s.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { write(w, notFound(r)) })
	return s, nil
}

// ServeHTTP answers as Twilio's API would.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// Close sends the status callbacks that are still to come, without further delay,
// waits for them, and ends stalled calls. Texts sent later get no callbacks.
func (s *Server) Close() error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.closing)
	}
	s.mu.Unlock()
	s.walks.Wait()
	s.client.CloseIdleConnections()
	return nil
}

// Calls are the sends that began, oldest first: also those that were refused, met a
// fault or are still under way.
func (s *Server) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Call
	for _, c := range s.calls {
		if c.Op == Send {
			out = append(out, *c)
		}
	}
	return out
}

// Count is how many calls of one kind began.
func (s *Server) Count(op Op) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, c := range s.calls {
		if c.Op == op {
			n++
		}
	}
	return n
}

// Block puts a number, in E.164, on the block list.
func (s *Server) Block(number string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blocked[number] = struct{}{}
}

// Unblock takes a number off the block list.
func (s *Server) Unblock(number string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.blocked, number)
}

// Blocked says whether a number is on the block list.
func (s *Server) Blocked(number string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.blocked[number]
	return ok
}

// An answer is what a call is answered with: JSON, or an error when code is set.
type answer struct {
	status int
	code   int
	body   any
}

// refuse is Twilio's error document.
func refuse(status, code int, message string) answer {
	return answer{status, code, struct {
		Code     int    `json:"code"`
		Message  string `json:"message"`
		MoreInfo string `json:"more_info"`
		Status   int    `json:"status"`
	}{code, message, fmt.Sprintf("https://www.twilio.com/docs/errors/%d", code), status}}
}

func notFound(r *http.Request) answer {
	return refuse(http.StatusNotFound, 20404, "the requested resource "+r.URL.Path+" was not found")
}

func tooMany() answer {
	return refuse(http.StatusTooManyRequests, 20429, "too many requests")
}

func write(w http.ResponseWriter, a answer) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(a.status)
	_ = json.NewEncoder(w).Encode(a.body) // a caller that left is no concern of ours
}

// serve wraps one operation: it records the call, checks the credentials, lets time
// pass and plays the fault.
func (s *Server) serve(op Op, do func(*http.Request, *Call) answer) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		malformed := parseForm(r)
		call, fault, wait := s.begin(op, began, r)
		s.sleep(wait / 2)

		a := func() answer {
			switch fault {
			case HangUpBefore:
				panic(http.ErrAbortHandler)
			case Error500Before, Error503Before:
				return answer{}
			case TooMany:
				return tooMany()
			}
			if a, ok := s.authenticate(r); !ok {
				return a
			}
			if malformed != nil {
				return refuse(http.StatusBadRequest, 20001, "unreadable request body")
			}
			return do(r, call)
		}()
		s.sleep(wait - wait/2)

		if a.code == 0 {
			switch fault {
			case HangUpAfter:
				panic(http.ErrAbortHandler)
			case StallAfter:
				select {
				case <-r.Context().Done():
				case <-s.closing:
				}
				panic(http.ErrAbortHandler)
			case Error500Before, Error500After:
				s.html(w, call, http.StatusInternalServerError)
				return
			case Error503Before, Error503After:
				s.html(w, call, http.StatusServiceUnavailable)
				return
			case GarbageAfter:
				s.finish(call, a.status, 0)
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(a.status)
				_, _ = io.WriteString(w, `{"sid": "SM`)
				return
			}
		}
		s.finish(call, a.status, a.code)
		write(w, a)
	}
}

// html is what a proxy in front of the API says when it is unwell.
func (s *Server) html(w http.ResponseWriter, call *Call, status int) {
	s.finish(call, status, 0)
	w.Header().Set("Content-Type", "text/html")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, "<html><body><h1>%d %s</h1></body></html>\n", status, http.StatusText(status))
}

// parseForm fills r.PostForm from a form of at most 64 KiB, and r.Form from the query
// too. Another content type is read as an empty form, as Twilio does.
func parseForm(r *http.Request) error {
	kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if r.Method == http.MethodPost && kind == "application/x-www-form-urlencoded" {
		r.Body = http.MaxBytesReader(nil, r.Body, 64<<10)
	} else {
		r.Body = http.NoBody
	}
	return r.ParseForm()
}

func (s *Server) begin(op Op, began time.Time, r *http.Request) (*Call, Fault, time.Duration) {
	call := &Call{Op: op, Began: began, To: r.Form.Get("To"), Body: r.PostForm.Get("Body")}
	if s.opt.Fault != nil {
		call.Fault = s.opt.Fault(*call)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if call.Fault == "" && op == Send && len(s.opt.Faults) > 0 && s.rng.Float64() < s.opt.FaultRate {
		call.Fault = s.opt.Faults[s.rng.IntN(len(s.opt.Faults))]
	}
	wait := s.opt.MinLatency
	if span := s.opt.MaxLatency - s.opt.MinLatency; span > 0 {
		wait += time.Duration(s.rng.Int64N(int64(span) + 1))
	}
	s.calls = append(s.calls, call)
	return call, call.Fault, wait
}

func (s *Server) finish(call *Call, status, code int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	call.Status, call.Code = status, code
}

// authenticate checks Basic auth and, where the path names an account, that it is the
// caller's own.
func (s *Server) authenticate(r *http.Request) (answer, bool) {
	user, password, _ := r.BasicAuth()
	if subtle.ConstantTimeCompare([]byte(user+":"+password), []byte(s.opt.AccountSID+":"+s.opt.AuthToken)) != 1 {
		return refuse(http.StatusUnauthorized, 20003, "authenticate"), false
	}
	if account := r.PathValue("account"); account != "" && account != s.opt.AccountSID {
		return notFound(r), false
	}
	return answer{}, true
}

// sleep lets a call take its time, also when the caller has left: Twilio goes on too.
func (s *Server) sleep(d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.closing:
	}
}

// newID makes a SID: a two-letter prefix and 32 hex digits. The caller holds s.mu.
func (s *Server) newID(prefix string) string {
	var b [16]byte
	for i := range b {
		b[i] = byte(s.rng.Uint32())
	}
	return prefix + hex.EncodeToString(b[:])
}
