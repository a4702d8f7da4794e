package twilio

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
)

// A Message is one text that Twilio keeps.
type Message struct {
	SID                 string
	Direction           string // "outbound-api", "outbound-reply" or "inbound"
	To, From            string
	MessagingServiceSID string
	Body                string
	StatusCallback      string
	ValidityPeriod      int       // seconds
	Began               time.Time // when the call that created it began, as in Call
	Accepted            time.Time // when it came into being
	Sent                time.Time // zero before
	Updated             time.Time
	Status              string // accepted, queued, sent, delivered, undelivered, failed, received
	ErrorCode           int    // of a text that is undelivered or failed, else 0
}

// Messages are the texts that were sent over the API, oldest first: one for each
// time that a recipient's phone would have rung, and those that failed later (see
// ErrorCode).
func (s *Server) Messages() []Message { return s.byDirection("outbound-api") }

// Replies are the texts that Twilio sent by itself: its own answer to a keyword, and
// what the edge's answer to an inbound text told it to send. A correct edge causes
// none.
func (s *Server) Replies() []Message { return s.byDirection("outbound-reply") }

func (s *Server) byDirection(d string) []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Message
	for _, m := range s.messages {
		if m.Direction == d {
			out = append(out, *m)
		}
	}
	return out
}

var (
	e164       = regexp.MustCompile(`^\+[1-9][0-9]{6,14}$`)
	shortCode  = regexp.MustCompile(`^[0-9]{3,8}$`)
	alphaID    = regexp.MustCompile(`^[A-Za-z0-9 ]{0,10}[A-Za-z][A-Za-z0-9 ]{0,10}$`)
	serviceSID = regexp.MustCompile(`^MG[0-9a-fA-F]{32}$`)
)

// isSender says whether Twilio could send a text from it.
func isSender(s string) bool {
	return e164.MatchString(s) || shortCode.MatchString(s) || len(s) <= 11 && alphaID.MatchString(s)
}

// sendParameters is what a send may carry. Others are refused: a misspelt parameter
// would otherwise go unnoticed.
var sendParameters = []string{"To", "From", "MessagingServiceSid", "Body", "StatusCallback",
	"ValidityPeriod", "SmartEncoded", "ShortenUrls", "RiskCheck", "MaxPrice", "ProvideFeedback",
	"Attempt", "ForceDelivery", "ApplicationSid", "MediaUrl", "ContentSid", "ContentVariables",
	"ScheduleType", "SendAt", "AddressRetention", "ContentRetention", "PersistentAction", "SendAsMms"}

// checkSend applies Twilio's rules to the parameters of a send; the validity period
// comes back in seconds.
func checkSend(f url.Values) (validity int, problem answer, ok bool) {
	bad := func(code int, message string) (int, answer, bool) {
		return 0, refuse(http.StatusBadRequest, code, message), false
	}
	for k := range f {
		if !slices.Contains(sendParameters, k) {
			return bad(20001, "unknown parameter "+k)
		}
	}
	to, from, service, body := f.Get("To"), f.Get("From"), f.Get("MessagingServiceSid"), f.Get("Body")
	validity = 36000
	switch {
	case to == "":
		return bad(21604, "a 'To' phone number is required")
	case !e164.MatchString(to):
		return bad(21211, "the 'To' number is not a valid phone number")
	case from == "" && service == "":
		return bad(21603, "a 'From' or 'MessagingServiceSid' parameter is required")
	case from != "" && !isSender(from):
		return bad(21212, "the 'From' number is not a valid phone number, short code or sender id")
	case service != "" && !serviceSID.MatchString(service):
		return bad(21701, "the messaging service does not exist")
	case to == from:
		return bad(21266, "'To' and 'From' number cannot be the same")
	case body == "":
		return bad(21602, "a message body is required")
	case len([]rune(body)) > 1600:
		return bad(21617, "the message body is longer than 1600 characters")
	}
	if callback := f.Get("StatusCallback"); callback != "" {
		u, err := url.Parse(callback)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || strings.Contains(u.Hostname(), "_") {
			return bad(21609, "the 'StatusCallback' is not a valid URL")
		}
	}
	if f.Has("ValidityPeriod") {
		n, err := strconv.Atoi(f.Get("ValidityPeriod"))
		if err != nil || n < 1 {
			return bad(90014, "the validity period is not a positive integer")
		}
		if n > 36000 {
			return bad(90007, "the validity period is longer than 36000 seconds")
		}
		validity = n
	}
	return validity, answer{}, true
}

// magic is the fate of +3363998xxxx, by its last four digits.
var magic = map[string]int{
	"1211": 21211, "1408": 21408, "1608": 21608, "1610": 21610, "1612": 21612, "1614": 21614,
	"0429": 20429,
	"3003": 30003, "3005": 30005, "3006": 30006, "3007": 30007,
}

// fate asks the options what becomes of a text: refused with status and code, or
// accepted and, where late is set, undelivered.
func (s *Server) fate(to string) (status, code, late int) {
	if s.opt.Reject != nil {
		if status, code = s.opt.Reject(to); status != 0 {
			return status, code, 0
		}
	}
	if s.opt.Undelivered != nil {
		if late = s.opt.Undelivered(to); late != 0 {
			return 0, 0, late
		}
	}
	if digits, ok := strings.CutPrefix(to, "+3363998"); ok && s.opt.MagicNumbers {
		switch code := magic[digits]; {
		case code == 20429:
			return http.StatusTooManyRequests, code, 0
		case code >= 30000:
			return 0, 0, code
		case code != 0:
			return http.StatusBadRequest, code, 0
		}
	}
	return 0, 0, 0
}

func (s *Server) send(r *http.Request, call *Call) answer {
	if !s.sends.Allow() {
		return tooMany()
	}
	f := r.PostForm
	validity, problem, ok := checkSend(f)
	if !ok {
		return problem
	}
	status, code, late := s.fate(f.Get("To"))
	if status != 0 {
		return refuse(status, code, "refused")
	}

	m := &Message{
		Direction: "outbound-api", To: f.Get("To"), From: f.Get("From"),
		MessagingServiceSID: f.Get("MessagingServiceSid"), Body: f.Get("Body"),
		StatusCallback: f.Get("StatusCallback"), ValidityPeriod: validity,
		Began: call.Began, Status: "queued",
	}
	if s.opt.RCS != nil && s.opt.RCS(m.To) {
		m.To = "rcs:" + m.To
	}
	if s.opt.Trial {
		m.Body = "Sent from your Twilio trial account - " + m.Body
	}
	if m.MessagingServiceSID != "" {
		m.Status = "accepted" // the service has yet to choose a sender
	}
	steps := []step{{status: "sent"}, {status: "delivered"}}
	if late != 0 {
		steps[1] = step{"undelivered", late}
	}

	s.mu.Lock()
	if _, blocked := s.blocked[m.To]; blocked {
		if !s.opt.BlockAsync {
			s.mu.Unlock()
			return refuse(http.StatusBadRequest, 21610, "attempt to send to an unsubscribed recipient")
		}
		steps = []step{{"failed", 21610}}
	}
	// The first status is the answer's and gets no callback.
	if m.Status == "accepted" && steps[0].status == "sent" {
		steps = append([]step{{status: "queued"}}, steps...)
	}
	s.keep(m)
	call.SID = m.SID
	body := s.resource(m)
	// Without a delay and a callback nobody can see the steps: take them at once.
	silent := m.StatusCallback == "" || s.opt.MuteCallbacks
	switch {
	case silent && s.opt.StepDelay == 0:
		for _, st := range steps {
			s.advance(m, st)
		}
	case !s.closed:
		s.walks.Add(1)
		go s.walk(m, steps)
	}
	s.mu.Unlock()
	return answer{status: http.StatusCreated, body: body}
}

// keep gives a message its SID and stores it. The caller holds s.mu.
func (s *Server) keep(m *Message) {
	if m.SID == "" {
		m.SID = s.newID("SM")
	}
	m.Accepted = time.Now()
	m.Updated = m.Accepted
	s.bySID[m.SID] = len(s.messages)
	s.byTo[m.To] = append(s.byTo[m.To], len(s.messages))
	s.messages = append(s.messages, m)
}

func (s *Server) fetch(r *http.Request, _ *Call) answer {
	sid, ok := strings.CutSuffix(r.PathValue("file"), ".json")
	if !ok {
		return notFound(r)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.bySID[sid]
	if !ok {
		return notFound(r)
	}
	return answer{status: http.StatusOK, body: s.resource(s.messages[i])}
}

// list answers newest first. A filter by date looks at the date of sending, which a
// text that was only just accepted does not have: it then is not in the list.
func (s *Server) list(r *http.Request, _ *Call) answer {
	q := r.URL.Query()
	bad := func(name string) answer {
		return refuse(http.StatusBadRequest, 20001, "unusable parameter "+name)
	}
	for k := range q {
		if !slices.Contains([]string{"To", "From", "DateSent", "DateSent<", "DateSent>", "PageSize", "Page", "PageToken"}, k) {
			return bad(k)
		}
	}
	size, page := 50, 0
	for name, n := range map[string]*int{"PageSize": &size, "Page": &page} {
		if v := q.Get(name); v != "" {
			var err error
			if *n, err = strconv.Atoi(v); err != nil || *n < 0 {
				return bad(name)
			}
		}
	}
	if size < 1 || size > 1000 {
		return bad("PageSize")
	}
	sentIn, ok := dateFilter(q)
	if !ok {
		return bad("DateSent")
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	// Indexes to look at: those of one recipient, or all.
	n := len(s.messages)
	at := func(i int) int { return i }
	if to := q.Get("To"); to != "" {
		ids := s.byTo[to]
		n, at = len(ids), func(i int) int { return ids[i] }
	}
	before := len(s.messages)
	if token := q.Get("PageToken"); token != "" {
		i, ok := s.bySID[strings.TrimPrefix(token, "PA")]
		if !ok {
			return bad("PageToken")
		}
		before = i
	} else if page > 0 {
		return bad("Page") // Twilio pages by token only
	}
	visible := time.Now().Add(-s.opt.ListLag)
	found := []resource{}
	next := ""
	for i := n - 1; i >= 0; i-- {
		m := s.messages[at(i)]
		if at(i) >= before || m.Accepted.After(visible) || q.Has("From") && m.From != q.Get("From") || !sentIn(m.Sent) {
			continue
		}
		if len(found) == size {
			next = found[size-1].SID
			break
		}
		found = append(found, s.resource(m))
	}

	self := func(page int, token string) string {
		v := url.Values{}
		for k := range q {
			v.Set(k, q.Get(k))
		}
		v.Set("PageSize", strconv.Itoa(size))
		v.Set("Page", strconv.Itoa(page))
		v.Del("PageToken")
		if token != "" {
			v.Set("PageToken", token)
		}
		return r.URL.Path + "?" + v.Encode()
	}
	out := listing{
		Messages: found, Page: page, PageSize: size,
		Start: page * size, End: page*size + max(0, len(found)-1),
		FirstPageURI: self(0, ""), URI: self(page, q.Get("PageToken")),
	}
	if next != "" {
		uri := self(page+1, "PA"+next)
		out.NextPageURI = &uri
	}
	return answer{status: http.StatusOK, body: out}
}

// dateFilter reads DateSent (that day), "DateSent>" and "DateSent<" (from, until;
// both inclusive), each a day in UTC or a time in RFC 3339.
func dateFilter(q url.Values) (func(time.Time) bool, bool) {
	var from, until time.Time // until is exclusive
	for _, name := range []string{"DateSent", "DateSent>", "DateSent<"} {
		v := q.Get(name)
		if v == "" {
			continue
		}
		unit := 24 * time.Hour
		t, err := time.Parse(time.DateOnly, v)
		if err != nil {
			unit = time.Second // a date in the API has whole seconds
			if t, err = time.Parse(time.RFC3339, v); err != nil {
				return nil, false
			}
		}
		if name == "DateSent" {
			unit = 24 * time.Hour
			t = t.UTC().Truncate(unit)
		}
		if name != "DateSent<" {
			from = t
		}
		if name != "DateSent>" {
			until = t.Add(unit)
		}
	}
	return func(t time.Time) bool {
		if from.IsZero() && until.IsZero() {
			return true
		}
		t = t.Truncate(time.Second)
		return !t.IsZero() && !t.Before(from) && (until.IsZero() || t.Before(until))
	}, true
}

type listing struct {
	Messages        []resource `json:"messages"`
	FirstPageURI    string     `json:"first_page_uri"`
	NextPageURI     *string    `json:"next_page_uri"`
	PreviousPageURI *string    `json:"previous_page_uri"`
	URI             string     `json:"uri"`
	Page            int        `json:"page"`
	PageSize        int        `json:"page_size"`
	Start           int        `json:"start"`
	End             int        `json:"end"`
}

// A resource is a message as the API shows it. Numbers are strings, absent values
// null, dates RFC 2822.
type resource struct {
	SID                 string            `json:"sid"`
	AccountSID          string            `json:"account_sid"`
	MessagingServiceSID *string           `json:"messaging_service_sid"`
	To                  string            `json:"to"`
	From                *string           `json:"from"`
	Body                string            `json:"body"`
	Status              string            `json:"status"`
	Direction           string            `json:"direction"`
	NumSegments         string            `json:"num_segments"`
	NumMedia            string            `json:"num_media"`
	Price               *string           `json:"price"`
	PriceUnit           *string           `json:"price_unit"`
	ErrorCode           *int              `json:"error_code"`
	ErrorMessage        *string           `json:"error_message"`
	DateCreated         string            `json:"date_created"`
	DateUpdated         string            `json:"date_updated"`
	DateSent            *string           `json:"date_sent"`
	APIVersion          string            `json:"api_version"`
	URI                 string            `json:"uri"`
	SubresourceURIs     map[string]string `json:"subresource_uris"`
}

// resource renders a message. The caller holds s.mu.
func (s *Server) resource(m *Message) resource {
	uri := fmt.Sprintf("/2010-04-01/Accounts/%s/Messages/%s", s.opt.AccountSID, m.SID)
	r := resource{
		SID: m.SID, AccountSID: s.opt.AccountSID, To: m.To, Body: m.Body, Status: m.Status,
		MessagingServiceSID: orNull(m.MessagingServiceSID), From: orNull(m.From),
		Direction: m.Direction, NumSegments: strconv.Itoa(segments(m.Body)), NumMedia: "0",
		PriceUnit:   orNull("USD"),
		DateCreated: m.Accepted.UTC().Format(time.RFC1123Z), DateUpdated: m.Updated.UTC().Format(time.RFC1123Z),
		APIVersion: "2010-04-01", URI: uri + ".json",
		SubresourceURIs: map[string]string{"media": uri + "/Media.json"},
	}
	if m.Status == "accepted" {
		r.NumSegments = "0"
	}
	if s.opt.Redact {
		r.Body = ""
	}
	if !m.Sent.IsZero() {
		r.DateSent = orNull(m.Sent.UTC().Format(time.RFC1123Z))
	}
	if m.ErrorCode != 0 {
		r.ErrorCode = &m.ErrorCode
		r.ErrorMessage = orNull("see the error code")
	}
	return r
}

func orNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// gsm7 is the part of GSM 03.38 beyond ASCII that matters in French; "ê" and "ç" are
// not in it, which is what makes a French text cost two segments.
const gsm7 = "£¥èéùìòÇØøÅåÆæßÉÄÖÑÜ§¿äöñüà¡€"

// segments is how many parts a text is cut into: 160 or 153 characters each in GSM
// 03.38, 70 or 67 otherwise.
func segments(body string) int {
	whole, part, n := 160, 153, 0
	for _, r := range body {
		n++
		if strings.ContainsRune("^{}\\[~]|€", r) {
			n++
		}
		if r > 126 && !strings.ContainsRune(gsm7, r) || r == '`' {
			whole, part, n = 70, 67, len(utf16.Encode([]rune(body)))
			break
		}
	}
	if n <= whole {
		return 1
	}
	return (n + part - 1) / part
}
