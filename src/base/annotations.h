/*
 * annotations.h - what guards what, in a form that clang's thread safety analysis holds the code
 * to (make lint). Other compilers see nothing of it.
 *
 * A name stands for one kind of lock (lock.h) or for one kind of thread (EG_ROLE), not for each of
 * its objects: C cannot name a sibling field in an attribute. So the analysis proves that a field
 * is touched under a lock of its kind; that it is the lock of the same object is seen with the eye,
 * as is what becomes of an address that is handed to a function without an annotation. What is
 * shared by atomics or by hand-over says so in a comment at its field.
 */
#ifndef EG_BASE_ANNOTATIONS_H
#define EG_BASE_ANNOTATIONS_H

#if defined(__clang__)
#define EG_ANNOTATE(a) __attribute__((a))
#else
#define EG_ANNOTATE(a)
#endif

/* A struct that can be held, called so in what the analysis says. */
#define EG_CAPABILITY(text) EG_ANNOTATE(capability(text))
/* A field that is read with the lock held in any way, and written with it held for writing. */
#define EG_GUARDED_BY(name) EG_ANNOTATE(guarded_by(name))
/* The same for what a pointer points to; the pointer itself never changes while it is shared. */
#define EG_PT_GUARDED_BY(name) EG_ANNOTATE(pt_guarded_by(name))
/* A function whose caller holds these. */
#define EG_REQUIRES(...) EG_ANNOTATE(requires_capability(__VA_ARGS__))
#define EG_REQUIRES_SHARED(...) EG_ANNOTATE(requires_shared_capability(__VA_ARGS__))
/* A function that takes or lets go. */
#define EG_ACQUIRE(...) EG_ANNOTATE(acquire_capability(__VA_ARGS__))
#define EG_ACQUIRE_SHARED(...) EG_ANNOTATE(acquire_shared_capability(__VA_ARGS__))
#define EG_RELEASE(...) EG_ANNOTATE(release_capability(__VA_ARGS__))
#define EG_RELEASE_SHARED(...) EG_ANNOTATE(release_shared_capability(__VA_ARGS__))
/* A function after which the analysis takes it as held, for a reason given there. */
#define EG_ASSERTS(...) EG_ANNOTATE(assert_capability(__VA_ARGS__))
#define EG_ASSERTS_SHARED(...) EG_ANNOTATE(assert_shared_capability(__VA_ARGS__))
/* The body is not looked at: locks themselves. */
#define EG_UNCHECKED EG_ANNOTATE(no_thread_safety_analysis)

/*
 * A kind of thread. Data guarded by it is touched by that thread only, and by whoever makes or ends
 * it while it does not run. name_is_here() says that this function is the thread's own, or that the
 * thread does not run.
 */
#define EG_ROLE(name)                                                                              \
    struct EG_CAPABILITY("role") name {                                                            \
        char unused;                                                                               \
    };                                                                                             \
    extern struct name name;                                                                       \
    EG_ASSERTS(name) __attribute__((unused)) static inline void name##_is_here(void)               \
    {                                                                                              \
    }                                                                                              \
    struct name

#endif
